"""Takes a microphone's constant offset out of a stream, without delay."""

from __future__ import annotations

import numpy as np

from edge_sdk.audio.samples import Floats

SHARE = 0.02
"""Of a new piece in the estimate: with pieces of 10 ms it follows within half a second, and leaves
what is faster than about 1 Hz alone."""


class OffsetRemoval:
    """Subtracts a slow mean. Each piece uses what was known before it, so nothing waits.

    Args:
        piece: samples per estimate, 10 ms or so.
    """

    def __init__(self, piece: int) -> None:
        self._piece = piece
        self._ramp = (np.arange(piece, dtype=np.float32) + 1) / np.float32(piece)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._seen: Floats = np.zeros(0, np.float32)
        self._count = 0
        self._from = self._to = np.float32(0)

    def push(self, samples: Floats) -> Floats:
        """As many samples (N,) float32 as came in."""
        found = np.empty_like(samples)
        done = 0
        while done < len(samples):
            at = len(self._seen)
            part = samples[done : done + self._piece - at]
            known = self._from + (self._to - self._from) * self._ramp[at : at + len(part)]
            np.subtract(part, known, out=found[done : done + len(part)])
            self._seen = np.concatenate((self._seen, part))
            done += len(part)
            if len(self._seen) == self._piece:
                self._learn()
        return found

    def _learn(self) -> None:
        self._count += 1
        mean = np.add.reduce(self._seen) / np.float32(self._piece)
        share = np.float32(max(SHARE, 1.0 / self._count))
        self._from, self._to = self._to, self._to + share * (mean - self._to)
        self._seen = self._seen[:0]
