"""The last seconds of sound, written by one thread and heard by any number of listeners.

A live source never waits: a listener that is slower than the ring is long loses the oldest sound,
which is counted. What is in the ring can be asked for again, so that a consumer gets what was said
before the wake word.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

import numpy as np

from edge_sdk.audio.samples import Floats
from edge_sdk.errors import EdgeError

MAX_GAPS = 1024


class Heard(NamedTuple):
    """A stretch of sound without a hole."""

    samples: Floats
    start: int
    """Position of the first sample, counted from the source's beginning."""
    resumed: bool
    """Something is missing before it: the device was away, or the listener too slow."""


class SoundRing:
    """A bounded stream.

    Args:
        capacity: samples that are kept.
        waits: the writer waits for the slowest listener instead of overwriting, as for a file.
    """

    def __init__(self, capacity: int, *, waits: bool = False) -> None:
        self._memory: Floats = np.zeros(capacity, np.float32)
        self._waits = waits
        self._written = 0
        self._gaps: deque[int] = deque(maxlen=MAX_GAPS)
        self._listeners: list[Listener] = []
        self._changed = threading.Condition()
        self._closed = False
        self._ended = False
        self._error: EdgeError | None = None

    @property
    def written(self) -> int:
        """Samples since the beginning."""
        return self._written

    @property
    def capacity(self) -> int:
        """Samples that are kept."""
        return len(self._memory)

    def listen(self) -> Listener:
        """A listener that hears everything from now on."""
        with self._changed:
            listener = Listener(self, self._written)
            self._listeners.append(listener)
        return listener

    def write(self, samples: Floats) -> None:
        """More sound; blocks when the ring waits for its listeners, until closed."""
        while len(samples):
            with self._changed:
                room = self._room()
                if room == 0:
                    self._changed.wait_for(lambda: self._closed or self._room() > 0)
                    room = self._room()
                if self._closed:
                    return
                part, samples = samples[:room], samples[room:]
                self._store(part)
                self._changed.notify_all()

    def _room(self) -> int:
        if not (self._waits and self._listeners):
            return self.capacity
        slowest = min(listener.position for listener in self._listeners)
        return self.capacity - (self._written - slowest)

    def _store(self, part: Floats) -> None:
        at = self._written % self.capacity
        head = min(len(part), self.capacity - at)
        self._memory[at : at + head] = part[:head]
        self._memory[: len(part) - head] = part[head:]
        self._written += len(part)

    def mark_gap(self) -> None:
        """What is written next does not follow on what was written last."""
        with self._changed:
            if not self._gaps or self._gaps[-1] != self._written:
                self._gaps.append(self._written)

    def end(self, error: EdgeError | None = None) -> None:
        """Nothing more will be written."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Let a writer that waits go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def recall(self, start: int, end: int) -> Floats:
        """A copy of what lies between two positions, as far as it is still there."""
        with self._changed:
            start = max(start, self._written - self.capacity, 0)
            return self._copy(start, max(start, min(end, self._written)))

    def _copy(self, start: int, end: int) -> Floats:
        at, count = start % self.capacity, end - start
        head = min(count, self.capacity - at)
        return np.concatenate((self._memory[at : at + head], self._memory[: count - head]))

    def take(self, listener: Listener, timeout_s: float, most: int) -> Heard | None:
        """See :meth:`Listener.take`."""
        with self._changed:
            if listener.position >= self._written and not self._ended:
                self._changed.wait(timeout_s)
            start, resumed = listener.position, listener.position in self._gaps
            oldest = self._written - self.capacity
            if start < oldest:
                listener.lost += oldest - start
                start, resumed = oldest, True
            if start >= self._written:
                if self._ended and self._error is not None:
                    raise self._error
                return None
            end = min([self._written, start + most, *(gap for gap in self._gaps if gap > start)])
            samples = self._copy(start, end)
            listener.position = end
            self._changed.notify_all()
            return Heard(samples, start, resumed)

    @property
    def ended(self) -> bool:
        """Nothing more will be written, and not because of an error."""
        return self._ended and self._error is None

    def leave(self, listener: Listener) -> None:
        """See :meth:`Listener.leave`."""
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self._changed.notify_all()


class Listener:
    """One consumer of a ring, at its own pace; used from one thread only."""

    def __init__(self, ring: SoundRing, position: int) -> None:
        self._ring = ring
        self.position = position
        """Of the next sample."""
        self.lost = 0
        """Samples that were overwritten before they were taken."""

    def take(self, timeout_s: float, most: int = 2**31) -> Heard | None:
        """The sound since the last call, at most up to the next hole; None when none came in time.

        Raises:
            EdgeError: the source failed, after everything before is taken.
        """
        return self._ring.take(self, timeout_s, most)

    @property
    def behind(self) -> int:
        """Samples that wait."""
        return self._ring.written - self.position

    @property
    def ended(self) -> bool:
        """Everything is taken, and nothing will come."""
        return self._ring.ended and self.behind <= 0

    def leave(self) -> None:
        """Stop listening; a file's reader waits for this listener no more."""
        self._ring.leave(self)
