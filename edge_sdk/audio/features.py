"""The front end: sound to spectrogram, block by block, for training and device alike.

All sums have a fixed order, so the values do not depend on how the stream was cut. They are
computed in float64 and rounded to :data:`GRID`: what the last bits of a Fourier transform or a
power differ by between processors, about 1e-13, is gone after that, and host and device see the
same float32 (ADR 0017).
"""

from __future__ import annotations

import numpy as np

from edge_sdk.audio.bands import Doubles, bad_features, make_bands
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import FeatureSpec

GRID = 2.0**-10
_FRAMES = 128
"""Computed at once at most, which bounds memory whatever is pushed."""


class FrontEnd:
    """A spectrogram that grows.

    Args:
        spec: what it looks like.

    Raises:
        ContractError: ``contract.bad-features``.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        if spec.fft_samples < spec.window_samples or spec.hop_samples > spec.window_samples:
            raise bad_features(
                f"{spec.hop_samples} samples of hop, {spec.window_samples} of window and "
                f"{spec.fft_samples} of transform must not fall"
            )
        self.spec = spec
        self._bands = make_bands(spec)
        turns = np.arange(spec.window_samples) / spec.window_samples
        window = 0.5 - 0.5 * np.cos(2.0 * np.pi * turns)
        # Full scale is 1: the window's own energy is taken out.
        self._window = window / np.sqrt(np.sum(np.square(window)))
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._waiting: Floats = np.zeros(0, np.float32)
        self._level: Doubles | None = None

    def skip(self) -> None:
        """The stream goes on somewhere else, in the same room: levels are kept."""
        self._waiting = np.zeros(0, np.float32)

    def push(self, samples: Floats) -> Floats:
        """The frames (T, bands) float32 that these samples complete.

        Args:
            samples: (N,) float32 at the specification's rate, full scale 1; not kept.
        """
        spec = self.spec
        waiting = np.concatenate((self._waiting, samples))
        count = max(0, (len(waiting) - spec.window_samples) // spec.hop_samples + 1)
        self._waiting = waiting[count * spec.hop_samples :].copy()
        found = np.empty((count, spec.bands), np.float32)
        for first in range(0, count, _FRAMES):
            last = min(first + _FRAMES, count)
            found[first:last] = self._compressed(self._energies(waiting, first, last))
        return found

    def _energies(self, waiting: Floats, first: int, last: int) -> Doubles:
        hop, width = self.spec.hop_samples, self.spec.window_samples
        frames = np.empty((last - first, width))
        for row, frame in enumerate(range(first, last)):
            frames[row] = waiting[frame * hop : frame * hop + width]
        # A constant offset of the microphone would leak through the window into the low bands.
        frames -= np.add.reduce(frames, axis=1, keepdims=True) / width
        frames *= self._window
        spectrum = np.fft.rfft(frames, self.spec.fft_samples, axis=1)
        return self._bands.energies(np.square(spectrum.real) + np.square(spectrum.imag))

    def _compressed(self, energies: Doubles) -> Doubles:
        spec = self.spec
        if spec.compression == "log":
            return _on_grid(np.log(energies + spec.floor))
        levels = self._levels(energies)
        scaled = energies / (levels + spec.floor) ** spec.gain
        found = (scaled + spec.bias) ** spec.power - spec.bias**spec.power
        return _on_grid(found)

    def _levels(self, energies: Doubles) -> Doubles:
        """Each band's recent level at each frame; the first frame is its own."""
        level = energies[0].copy() if self._level is None else self._level
        levels = np.empty_like(energies)
        for row, energy in enumerate(energies):
            level = level + self.spec.smoothing * (energy - level)
            levels[row] = level
        self._level = level
        return levels


def features(samples: Floats, spec: FeatureSpec) -> Floats:
    """The spectrogram (T, bands) of a whole recording (N,).

    Raises:
        ContractError: ``contract.bad-features``.
    """
    return FrontEnd(spec).push(samples)


def _on_grid(values: Doubles) -> Doubles:
    found: Doubles = np.rint(values / GRID) * GRID
    return found
