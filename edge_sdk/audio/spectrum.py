"""Sound to overlapping spectra and back, and the bands in which an enhancer sees them.

A frame is one window of sound. Windows are the square root of Hann's, halfway over each other,
going in and coming out, so that an unchanged spectrum gives the same sound back (Princen and
Bradley 1986 call this condition perfect reconstruction).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.audio.bands import Doubles
from edge_sdk.contracts.audio import EnhanceSpec
from edge_sdk.errors import ContractError

Complexes = npt.NDArray[np.complex128]

GRID = 2.0**-10
"""Features are rounded to this, as others are (ADR 0017): the same on every machine."""
_FLOOR = 1e-10
"""Power below which nothing is told apart: -100 dB of full scale."""
_NEPERS = 2.5
"""Natural logarithms of amplitude per unit of the first feature."""
_LIMIT = 3.0
_COMPRESSION = 0.3
"""Power of the amplitude of the second and third feature."""
_LEVEL_SHARE = 0.02
"""Share of a new frame in the level that features are relative to: it remembers 0.8 s."""


@dataclass(frozen=True, slots=True)
class BandMap:
    """Triangles over the bins: one bin each at first, then wider and wider."""

    piece: npt.NDArray[np.intp]
    """Of each bin, the band whose centre lies at or below it."""
    share: Doubles
    """How much of each bin belongs to the band above; the rest to that of :attr:`piece`."""
    starts: npt.NDArray[np.intp]
    size: Doubles
    """Bins in each band, weighed."""

    def means(self, values: npt.NDArray[np.complex128] | Doubles) -> npt.NDArray[np.complex128]:
        """(..., bands), the mean of each band, from (..., bins)."""
        found = np.add.reduceat(values * (1.0 - self.share), self.starts, axis=-1)
        found[..., 1:] += np.add.reduceat(values * self.share, self.starts, axis=-1)[..., :-1]
        return np.asarray(found / self.size)

    def spread(self, bands: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
        """(..., bins), drawn straight from centre to centre, from (..., bands)."""
        above = np.minimum(self.piece + 1, bands.shape[-1] - 1)
        low, high = bands[..., self.piece], bands[..., above]
        return np.asarray(low + self.share.astype(np.float32) * (high - low))


def band_map(spec: EnhanceSpec) -> BandMap:
    """The bands of a specification.

    Raises:
        ContractError: ``contract.bad-features``.
    """
    last = spec.window_samples // 2
    wide, rest = spec.bands - spec.single_bins, last - spec.single_bins
    if spec.window_samples % 2 or not (0 < wide <= rest + 1):
        raise ContractError(
            "bad-features",
            f"{spec.bands} bands of which {spec.single_bins} are single bins do not fit into the "
            f"{last + 1} bins of a window of {spec.window_samples} samples.",
            "Correct the task's enhancement (fewer bands, a longer and even window).",
        )
    # The widths grow by equal steps from one bin on, and fill what is left.
    steps = np.arange(1, wide)
    slope = 0.0 if wide < 3 else (rest - (wide - 1)) / (steps - 1).sum()
    widths = 1.0 + slope * (steps - 1)
    centres = np.concatenate((np.arange(spec.single_bins + 1), spec.single_bins + widths.cumsum()))
    bins = np.arange(last + 1)
    piece = np.searchsorted(centres, bins + 1e-9, side="right") - 1
    above = np.append(centres[1:], np.inf)
    share: Doubles = (bins - centres[piece]) / (above[piece] - centres[piece])
    size = np.asarray(np.bincount(piece, 1.0 - share, spec.bands), np.float64)
    size[1:] += np.bincount(piece, share, spec.bands)[:-1]
    return BandMap(piece, share, np.searchsorted(piece, np.arange(spec.bands)), size)


class Analysis:
    """Frames of sound to spectra and to what a network is told of them.

    Keeps the recent level from call to call; independent streams along the leading axes.
    """

    def __init__(self, spec: EnhanceSpec) -> None:
        self.bands = band_map(spec)
        self.window = window(spec)
        # The phase is told from the middle of the window, where it changes little between bins.
        self._turn = np.where(np.arange(spec.window_samples // 2 + 1) % 2, -1.0, 1.0)
        self._scale = 1.0 / np.sqrt(np.sum(np.square(self.window)))
        self.reset()

    def reset(self) -> None:
        """Forget the level."""
        self._level: Doubles | None = None
        self._seen = 0

    def spectra(self, frames: npt.NDArray[np.floating]) -> Complexes:
        """(..., T, bins) from frames (..., T, window)."""
        return np.fft.rfft(frames * self.window, axis=-1)

    def features(self, spectra: Complexes) -> npt.NDArray[np.float32]:
        """(..., 3, T, bands) float32 from spectra (..., T, bins).

        The logarithm of each band's power, and its mean as a complex number whose amplitude is
        compressed, all relative to the recent level.
        """
        scaled = spectra * (self._turn * self._scale)
        power = np.square(scaled.real) + np.square(scaled.imag)
        logs = 0.5 * np.log(self.bands.means(power) + _FLOOR)
        level = self._levels(np.add.reduce(logs, axis=-1) / logs.shape[-1])[..., None]
        means = self.bands.means(scaled)
        sizes = np.abs(means) + 1e-12
        means *= np.exp(_COMPRESSION * (np.log(sizes) - level)) / sizes
        found = np.stack(((logs - level) / _NEPERS, means.real / 2, means.imag / 2), axis=-3)
        np.clip(found, -_LIMIT, _LIMIT, out=found)
        return (np.rint(found / GRID) * GRID).astype(np.float32)

    def _levels(self, logs: Doubles) -> Doubles:
        """The recent mean of (..., T) at each T; at first the mean of all so far."""
        level = np.zeros(logs.shape[:-1]) if self._level is None else self._level
        levels = np.empty_like(logs)
        for at in range(logs.shape[-1]):
            self._seen += 1
            level = level + max(_LEVEL_SHARE, 1.0 / self._seen) * (logs[..., at] - level)
            levels[..., at] = level
        self._level = level
        return levels


def window(spec: EnhanceSpec) -> Doubles:
    """(window,) the square root of Hann's window."""
    turns = np.arange(spec.window_samples) / spec.window_samples
    return np.asarray(np.sin(np.pi * turns))


def cut(sound: npt.NDArray[np.floating], spec: EnhanceSpec) -> npt.NDArray[np.floating]:
    """(..., T, window), the frames of sounds (..., N), T being N over half a window.

    As on a device, half a window of silence comes before the sound.
    """
    half = spec.window_samples // 2
    count = sound.shape[-1] // half
    padded = np.concatenate((np.zeros_like(sound[..., :half]), sound), axis=-1)
    return np.stack([padded[..., i * half : (i + 2) * half] for i in range(count)], axis=-2)
