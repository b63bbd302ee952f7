"""Speech out of noise, block by block: spectra, a network's answer, overlap-add."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_sdk.audio.bands import Doubles
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.spectrum import Analysis
from edge_sdk.contracts.audio import EnhanceSpec

Factors = Callable[[Floats], Floats]
"""From features (3, bands) of a frame to the real and imaginary parts (2, bands) of its factors; it
remembers the frames before."""


class Enhancer:
    """Cleans a stream. What comes out does not depend on how the stream was cut.

    Sample ``i`` that comes out belongs to sample ``i`` that went in, and comes one window after it
    at the latest: 32 ms by default.

    Args:
        spec: of the network.
        factors: the network, see :data:`Factors`.
        forget: makes it forget the frames before.

    Raises:
        ContractError: ``contract.bad-features``.
    """

    def __init__(
        self, spec: EnhanceSpec, factors: Factors, forget: Callable[[], None] = lambda: None
    ) -> None:
        self.spec = spec
        self._half = spec.window_samples // 2
        self._analysis = Analysis(spec)
        self._factors, self._forget = factors, forget
        self.reset()

    @property
    def delay_s(self) -> float:
        """From a sample to the same sample cleaned, at most; computing adds its own time."""
        return self.spec.window_samples / self.spec.sample_rate_hz

    def reset(self) -> None:
        """Another stream."""
        self._forget()
        self._analysis.reset()
        self._waiting: Floats = np.zeros(self._half, np.float32)
        self._overlap: Doubles | None = None

    def push(self, samples: Floats) -> Floats:
        """The samples (M,) that these (N,) complete, float32.

        Raises:
            RuntimeUnavailableError: the inference failed.
        """
        waiting = np.concatenate((self._waiting, samples))
        count = len(waiting) // self._half - 1
        found = []
        for at in range(count):
            piece = self._step(waiting[at * self._half : (at + 2) * self._half])
            if piece is not None:
                found.append(piece)
        self._waiting = waiting[max(0, count) * self._half :].copy()
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def flush(self) -> Floats:
        """The end of the stream: what has not come out yet."""
        rest = len(self._waiting) - self._half
        missing = rest + (0 if self._overlap is None else self._half)
        found = self.push(np.zeros(2 * self._half - rest, np.float32))[:missing]
        self.reset()
        return found

    def _step(self, frame: Floats) -> Floats | None:
        """The first half of what a frame gives, together with what the one before left over it."""
        spectrum = self._analysis.spectra(frame[None])
        bands = self._factors(self._analysis.features(spectrum)[:, 0])
        factors = self._analysis.bands.spread(bands[0] + 1j * bands[1])
        frame_out = np.fft.irfft(spectrum[0] * factors, self.spec.window_samples)
        frame_out *= self._analysis.window
        before, self._overlap = self._overlap, frame_out[self._half :]
        # The first frame's first half lies before the stream.
        return None if before is None else (before + frame_out[: self._half]).astype(np.float32)
