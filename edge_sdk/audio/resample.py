"""Another sampling rate, block by block: a polyphase filter over numpy arrays.

Output ``n`` lies at input time ``n * step / phases``. Each is one product of a fixed number of
input samples with the taps of its phase, so its bits do not depend on how the stream was cut.
Method: windowed sinc, J. O. Smith, "Digital Audio Resampling" (CCRMA).
"""

from __future__ import annotations

import math

import numpy as np

from edge_sdk.audio.samples import Floats
from edge_sdk.errors import SourceError

ZERO_CROSSINGS = 16
"""Per side of the filter: 80 dB of rejection with :data:`KAISER_BETA`."""
KAISER_BETA = 8.0
PASS_SHARE = 0.91
"""The filter's middle as a share of the lower Nyquist frequency: what would fold back is gone
by the time it reaches speech."""
MAX_PHASES = 1024
MAX_RATE_HZ = 400_000
_BLOCK = 4096


class Resampler:
    """A stream at another rate.

    Args:
        from_hz: rate of what is pushed.
        to_hz: rate of what comes out.

    Raises:
        SourceError: ``source.bad-rate`` when the rates have no small common divisor: not one of
            the usual rates of sound devices.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        if not (0 < from_hz <= MAX_RATE_HZ and 0 < to_hz <= MAX_RATE_HZ):
            raise _bad_rate(from_hz, to_hz)
        divisor = math.gcd(from_hz, to_hz)
        self._phases, self._step = to_hz // divisor, from_hz // divisor
        if self._phases > MAX_PHASES:
            raise _bad_rate(from_hz, to_hz)
        self._same = from_hz == to_hz
        self._taps = _taps(self._phases, min(1.0, to_hz / from_hz))
        self._half = self._taps.shape[1] // 2
        self.delay_s = 0.0 if self._same else self._half / from_hz
        """How much later than its input an output sample can be given."""
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        # What lies before the beginning is silence.
        self._waiting: Floats = np.zeros(self._half - 1, np.float32)
        self._phase = 0
        """Of the next output, relative to the first sample it needs."""

    def push(self, samples: Floats) -> Floats:
        """The output samples (M,) that these (N,) float32 complete."""
        if self._same:
            return samples
        parts = [self._push(samples[i : i + _BLOCK]) for i in range(0, len(samples), _BLOCK)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def flush(self) -> Floats:
        """What is left at the end of a stream, silence following it; then the beginning again."""
        rest = self.push(np.zeros(self._half, np.float32)) if not self._same else _nothing()
        self.reset()
        return rest

    def _push(self, samples: Floats) -> Floats:
        waiting = np.concatenate((self._waiting, samples))
        width = 2 * self._half
        room = len(waiting) - width
        # Output k begins at sample (phase + k * step) // phases; count those that fit.
        if room < self._phase // self._phases:
            self._waiting = waiting
            return _nothing()
        count = ((room + 1) * self._phases - 1 - self._phase) // self._step + 1
        ticks = self._phase + self._step * np.arange(count)
        first, phase = ticks // self._phases, ticks % self._phases
        windows = waiting[first[:, None] + np.arange(width)]
        windows *= self._taps[phase] if self._phases > 1 else self._taps
        after = self._phase + count * self._step
        gone = min(after // self._phases, len(waiting))
        self._waiting = waiting[gone:].copy()
        self._phase = after - gone * self._phases
        found: Floats = np.add.reduce(windows, axis=1)
        return found


def resample(samples: Floats, from_hz: int, to_hz: int) -> Floats:
    """A whole recording (N,) at another rate; its beginning stays its beginning.

    Raises:
        SourceError: ``source.bad-rate``.
    """
    resampler = Resampler(from_hz, to_hz)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def _taps(phases: int, ratio: float) -> Floats:
    """(phases, width): the filter at each offset between two input samples, each of sum 1."""
    cutoff = ratio * PASS_SHARE
    half = math.ceil(ZERO_CROSSINGS / cutoff)
    offsets = np.arange(1 - half, half + 1) - np.arange(phases)[:, None] / phases
    inside = np.clip(1.0 - (offsets / half) ** 2, 0.0, None)
    taps = np.sinc(cutoff * offsets) * np.i0(KAISER_BETA * np.sqrt(inside))
    found: Floats = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def _nothing() -> Floats:
    return np.zeros(0, np.float32)


def _bad_rate(from_hz: int, to_hz: int) -> SourceError:
    return SourceError(
        "bad-rate",
        f"Sound at {from_hz} Hz cannot be brought to {to_hz} Hz.",
        "Record at a usual rate: 8000, 11025, 16000, 22050, 32000, 44100, 48000 or 96000 Hz.",
    )
