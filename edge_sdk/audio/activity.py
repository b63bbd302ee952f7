"""Is anybody there? A gate in front of everything that costs, by loudness over the room's noise.

It decides on pieces of 10 ms with a handful of operations. When it opens it hands over what came
shortly before, so that the beginning of a word is not lost; what lies between two openings is
skipped, and the next stretch says so.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from edge_sdk.audio.samples import Floats


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """When the gate opens and closes."""

    margin_db: float = 8.0
    """Over the noise floor."""
    least_db: float = -65.0
    """Nothing below this opens it."""
    hold_s: float = 1.0
    """Stays open after the last loud piece."""
    before_s: float = 0.5
    """Sound handed over from before the opening."""
    rise_db_s: float = 2.0
    """How fast the floor follows a room that gets louder; downwards it follows within 0.1 s."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sound that is worth a look."""

    samples: Floats
    start: int
    """Position of the first sample in the stream."""
    resumed: bool
    """Sound before it was skipped: states that remember it are stale."""


class ActivityGate:
    """Cuts a stream into the stretches in which something happens.

    Args:
        rate_hz: of the samples.
        policy: when it opens.
    """

    def __init__(self, rate_hz: int, policy: GatePolicy | None = None) -> None:
        self._policy = policy or GatePolicy()
        self._piece = max(1, rate_hz // 100)
        self._piece_s = self._piece / rate_hz
        kept = max(1, round(self._policy.before_s / self._piece_s))
        self._before: deque[Floats] = deque(maxlen=kept)
        self._part: Floats = np.zeros(0, np.float32)
        self._position = 0
        self._end = 0
        """Where the last stretch ended."""
        self._floor_db = self._policy.least_db
        self._open_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether sound passes now."""
        return self._open_s > 0

    @property
    def floor_db(self) -> float:
        """The room's noise as it is believed to be; full scale is 0."""
        return self._floor_db

    def go_on(self, position: int) -> None:
        """The stream goes on somewhere else, in the same room."""
        self._part = np.zeros(0, np.float32)
        self._before.clear()
        self._position, self._end = position, -1

    def push(self, samples: Floats) -> list[Stretch]:
        """What of the stream passes, in order; nothing while the gate is closed."""
        joined = np.concatenate((self._part, samples))
        whole = len(joined) - len(joined) % self._piece
        self._part = joined[whole:].copy()
        passed: list[Floats] = []
        found: list[Stretch] = []
        for first in range(0, whole, self._piece):
            piece = joined[first : first + self._piece]
            self._position += self._piece
            if self._passes(piece):
                passed += [*self._before, piece]
                self._before.clear()
            else:
                found += self._stretch(passed, self._position - self._piece)
                passed = []
                self._before.append(piece.copy())
        return found + self._stretch(passed, self._position)

    def _stretch(self, passed: list[Floats], end: int) -> list[Stretch]:
        if not passed:
            return []
        samples = np.concatenate(passed)
        start = end - len(samples)
        resumed = start != self._end
        self._end = end
        return [Stretch(samples, start, resumed)]

    def _passes(self, piece: Floats) -> bool:
        policy = self._policy
        power = float(np.add.reduce(np.square(piece))) / len(piece)
        level_db = 10.0 * math.log10(max(power, 1e-12))
        # Judged by the floor of before, so that the first loud piece does not raise its own bar.
        loud = level_db > max(self._floor_db + policy.margin_db, policy.least_db)
        if level_db < self._floor_db:
            self._floor_db += (level_db - self._floor_db) * min(1.0, self._piece_s / 0.1)
        else:
            self._floor_db = min(level_db, self._floor_db + policy.rise_db_s * self._piece_s)
        self._open_s = policy.hold_s if loud else max(0.0, self._open_s - self._piece_s)
        return self._open_s > 0
