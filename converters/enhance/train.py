"""Training an enhancer for as long as there is time: one pass over data that never repeats.

AdamW with a cosine over the time that is given, and a moving average of the weights, which is what
is kept.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from converters.enhance.loss import enhancement_loss
from converters.enhance.network import EnhanceNetwork
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.spectrum import Analysis, BandMap, cut, window
from edge_sdk.contracts.audio import EnhanceSpec

_CLIP: Final = 3.0
_WARM_STEPS: Final = 100
_AVERAGE: Final = 0.998

Pieces = Callable[[], tuple[Floats, Floats]]
"""The next noisy pieces (N, samples) and the speech in them."""


class Progress(NamedTuple):
    """After some steps."""

    steps: int
    share: float
    """Of the time."""
    loss: float
    """Mean since the last report."""


class Batch(NamedTuple):
    """Noisy speech and what is wanted of it."""

    features: Tensor
    """(N, 3, T, bands)."""
    noisy: Tensor
    """(N, T, bins), complex."""
    clean: Tensor


def train_for(
    network: EnhanceNetwork,
    spec: EnhanceSpec,
    pieces: Pieces,
    seconds: float,
    *,
    rate: float = 2e-3,
    report: Callable[[Progress, nn.Module], None] = lambda progress, network: None,
    report_every: int = 50,
    clock: Callable[[], float] = time.monotonic,
) -> EnhanceNetwork:
    """The average network after so many seconds.

    Args:
        network: where to begin; is trained in place.
        spec: what it takes.
        pieces: what it learns from.
        seconds: to train for.
        rate: of learning, at its highest.
        report: told how it goes, with the average network so far.
        report_every: so many steps.
        clock: seconds.
    """
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
    losses: list[float] = []
    for steps, share in enumerate(_shares(clock, seconds), 1):
        warm = min(1.0, steps / _WARM_STEPS)
        optimizer.param_groups[0]["lr"] = rate * warm * (0.5 + 0.5 * math.cos(math.pi * share))
        losses.append(_descend(network, optimizer, batch_of(pieces(), spec), spec))
        _follow(average, network, min(_AVERAGE, (1 + steps) / (20 + steps)))
        if steps % report_every == 0:
            report(Progress(steps, share, float(np.mean(losses))), average)
            losses.clear()
    return average.eval()


def batch_of(pieces: tuple[Floats, Floats], spec: EnhanceSpec) -> Batch:
    """Features and spectra of pieces (N, samples)."""
    analysis = Analysis(spec)
    noisy, clean = (analysis.spectra(cut(sound, spec)) for sound in pieces)
    spectra = (torch.from_numpy(one.astype(np.complex64)) for one in (noisy, clean))
    return Batch(torch.from_numpy(analysis.features(noisy)), *spectra)


def applied(factors: Tensor, spectra: Tensor, bands: BandMap) -> Tensor:
    """Spectra (N, T, bins) times factors (N, 2, T, bands), as ``BandMap.spread`` spreads them."""
    whole = torch.complex(factors[:, 0], factors[:, 1])
    above = torch.from_numpy(np.minimum(bands.piece + 1, whole.shape[2] - 1))
    low, high = whole[..., torch.from_numpy(bands.piece)], whole[..., above]
    share = torch.from_numpy(bands.share.astype(np.float32))
    return spectra * (low + share * (high - low))


def _shares(clock: Callable[[], float], seconds: float) -> Iterator[float]:
    began = clock()
    while (share := (clock() - began) / seconds) < 1.0:
        yield share


def _descend(
    network: EnhanceNetwork, optimizer: torch.optim.Optimizer, batch: Batch, spec: EnhanceSpec
) -> float:
    memories = network.memories(len(batch.features))
    found, *_ = network(*(_laid_out(one) for one in (batch.features, *memories)))
    estimate = applied(found, batch.noisy, Analysis(spec).bands)
    shape = torch.from_numpy(window(spec).astype(np.float32))
    loss = enhancement_loss(estimate, batch.clean, shape)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    optimizer.step()
    return float(loss.detach())


def _laid_out(one: Tensor) -> Tensor:
    """As convolutions on a CPU are fastest."""
    return one.to(memory_format=torch.channels_last) if one.dim() == 4 else one


def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(now, 1.0 - keep)
        for held, other in zip(average.buffers(), network.buffers(), strict=True):
            held.copy_(other)
