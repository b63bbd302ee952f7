"""How far an estimate is from clean speech: spectra, compressed as ears do, and the waveform.

The compressed spectra follow Ephrat et al. 2018, "Looking to listen at the cocktail party", and
Braun and Tashev 2021, "A consolidated view of loss functions for supervised deep learning-based
speech enhancement"; SI-SDR is Le Roux et al. 2019, "SDR - half-baked or well done?".
"""

from __future__ import annotations

import torch
from torch import Tensor

_POWER = 0.3
_SMALL = 1e-6
_COMPLEX_SHARE = 0.3
_SISDR_WEIGHT = 0.01


def enhancement_loss(estimate: Tensor, clean: Tensor, window: Tensor) -> Tensor:
    """The mean over recordings.

    Args:
        estimate: complex spectra (N, T, bins).
        clean: likewise.
        window: (samples,) that sound was cut with, and is put together with.
    """
    # A recording's own loudness is taken out: a quiet one counts as much.
    power = clean.real.square() + clean.imag.square()
    scale = power.mean((1, 2), keepdim=True).add(_SMALL).rsqrt()
    estimate, clean = estimate * scale, clean * scale
    size, clean_size = _size(estimate), _size(clean)
    low, clean_low = size**_POWER, clean_size**_POWER
    magnitude = (low - clean_low).square().mean()
    apart = estimate * (low / size) - clean * (clean_low / clean_size)
    whole = (apart.real.square() + apart.imag.square()).mean()
    heard, wanted = overlap_add(estimate, window), overlap_add(clean, window)
    spectral = (1 - _COMPLEX_SHARE) * magnitude + _COMPLEX_SHARE * whole
    return spectral - _SISDR_WEIGHT * si_sdr(heard, wanted).clamp(max=30.0).mean()


def si_sdr(estimate: Tensor, clean: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, (N,), of (N, samples)."""
    estimate = estimate - estimate.mean(1, keepdim=True)
    clean = clean - clean.mean(1, keepdim=True)
    share = (estimate * clean).sum(1, keepdim=True) / (clean.square().sum(1, keepdim=True) + 1e-8)
    target = share * clean
    rest = (estimate - target).square().sum(1)
    return 10 * torch.log10((target.square().sum(1) + 1e-8) / (rest + 1e-8))


def overlap_add(spectra: Tensor, window: Tensor) -> Tensor:
    """(N, samples) from (N, T, bins), windows halfway over each other."""
    frames = torch.fft.irfft(spectra, dim=-1) * window
    count, _, length = frames.shape
    first, second = frames[..., : length // 2], frames[..., length // 2 :]
    found: Tensor = (first[:, 1:] + second[:, :-1]).reshape(count, -1)
    return found


def _size(spectra: Tensor) -> Tensor:
    return (spectra.real.square() + spectra.imag.square() + _SMALL).sqrt()
