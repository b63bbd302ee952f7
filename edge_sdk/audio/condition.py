"""From any microphone to the one kind of sound that models hear."""

from __future__ import annotations

import numpy as np

from edge_sdk.audio.levels import Fault, LevelWatch
from edge_sdk.audio.offset import OffsetRemoval
from edge_sdk.audio.resample import Resampler
from edge_sdk.audio.samples import Floats, mono

HEARD_APART = 1e-3
"""Peak of a single channel that counts as sound where the mean of all is silent."""


class Conditioner:
    """Channels to one, the rate to the model's, the offset out; and an eye on the levels.

    Args:
        from_hz: rate of what is pushed.
        to_hz: rate of what comes out.
        channel: which channel; None for the mean of all.

    Raises:
        SourceError: ``source.bad-rate``.
    """

    def __init__(self, from_hz: int, to_hz: int, channel: int | None = None) -> None:
        self._channel = channel
        self._resampler = Resampler(from_hz, to_hz)
        self._offset = OffsetRemoval(max(1, to_hz // 100))
        self.watch = LevelWatch(from_hz)
        self._apart = False
        self.delay_s = self._resampler.delay_s
        """How much later sound comes out than it went in."""

    def push(self, frames: Floats) -> Floats:
        """(N, channels) float32 to (M,) float32 at the other rate."""
        single = mono(frames, self._channel)
        self.watch.push(single)
        if self.watch.fault == "silent":
            self._apart = bool(np.abs(frames).max(initial=0.0) > HEARD_APART)
        return self._offset.push(self._resampler.push(single))

    @property
    def fault(self) -> Fault:
        """What is wrong with the levels, or how the channels fit together."""
        fault = self.watch.fault
        return "cancelled" if fault == "silent" and self._apart else fault

    def flush(self) -> Floats:
        """The end of the stream: what the filter still holds."""
        rest: Floats = self._offset.push(self._resampler.flush())
        return rest


def conditioned(frames: Floats, from_hz: int, to_hz: int) -> Floats:
    """A whole recording (N, channels), as a device would hear it.

    Raises:
        SourceError: ``source.bad-rate``.
    """
    conditioner = Conditioner(from_hz, to_hz)
    return np.concatenate((conditioner.push(frames), conditioner.flush()))
