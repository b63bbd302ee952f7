"""Reads a source in a thread of its own and hands its frames over through a bounded queue.

A file waits while the queue is full. A live source cannot: its oldest frame makes room and is
counted as dropped. A lost camera is opened again with a growing pause, for as long as it takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from agent.sources.base import Frame, Image, Reader
from agent.sources.reading import FIRST_PAUSE_S, LONGEST_PAUSE_S, read_out
from edge_sdk.errors import EdgeError, SourceError

CAPACITY = 4
LAG_S = 1.0
"""A paced file that is later than this gives up catching up."""

log = logging.getLogger(__name__)


class Feed:
    """A running source.

    Args:
        reader: the source; used from the feed's thread only.
        labels: one per frame of a file; None takes the reader's own.
        fps: pace in frames per second, 0 for none. A live source is thinned to it.
        loop: begin a file again at its end.
        capacity: frames that wait at most.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        labels: tuple[str, ...] | None = None,
        fps: float = 0.0,
        loop: bool = False,
        capacity: int = CAPACITY,
    ) -> None:
        self._reader = reader
        self._labels = labels
        self._period_s = 1.0 / fps if fps else 0.0
        self._loop = loop
        self._capacity = capacity
        self._queue: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._ended = False
        self._error: EdgeError | None = None
        self._dropped = 0
        self._trouble = ""
        self._number = 0
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        """Open the source and begin to read, in the background."""
        self._thread.start()

    def get(self, timeout_s: float) -> Frame | None:
        """The next frame, or None when none came in time or :attr:`ended`.

        Raises:
            SourceError: the source cannot be opened or read, after all frames before are taken.
        """
        with self._changed:
            if not self._queue and not self._ended:
                self._changed.wait(timeout_s)
            if self._queue:
                # Waking the reader once per half queue, not per frame, saves a switch each.
                if len(self._queue) <= (self._capacity + 1) // 2:
                    self._changed.notify()
                return self._queue.popleft()
            if self._error is not None:
                raise self._error
            return None

    @property
    def ended(self) -> bool:
        """No frame will come any more."""
        return self._ended and not self._queue and self._error is None

    @property
    def depth(self) -> int:
        """Frames that wait."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Frames a live source lost since the start, because nobody took them."""
        return self._dropped

    @property
    def trouble(self) -> str:
        """Why no frame comes now, in one sentence; empty when all is well."""
        return self._trouble

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop reading. A read that hangs in a driver is left behind in its daemon thread."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            read = self._read_live if self._reader.live else self._read_file
            error = read_out(read, self._reader.where)
        finally:
            self._reader.close()
        with self._changed:
            self._error = error
            self._ended = True
            self._changed.notify_all()

    def _read_file(self) -> None:
        while not self._closed.is_set():
            own = self._reader.open()
            labels = self._labels if self._labels is not None else own
            count = self._pass(labels)
            self._reader.close()
            if self._closed.is_set():
                return
            if labels is not None and len(labels) != count:
                raise SourceError(
                    "labels-mismatch",
                    f"{self._reader.where} has {count} frames and {len(labels)} labels.",
                    "Write one label per frame, in frame order.",
                )
            if not self._loop:
                return
            if not count:
                raise SourceError(
                    "empty",
                    f"{self._reader.where} has no frames, so there is nothing to loop over.",
                    "Check path in [pipeline.source].",
                )

    def _pass(self, labels: tuple[str, ...] | None) -> int:
        """Once through the file; the number of frames in it."""
        count = 0
        while not self._closed.is_set():
            image = self._reader.read()
            if image is None:
                break
            self._wait_until_due()
            self._put(image, labels[count] if labels and count < len(labels) else "")
            count += 1
        return count

    def _read_live(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                self._reader.open()
                if self._drain_live():
                    pause_s = FIRST_PAUSE_S
                cause = f"{self._reader.where} stopped delivering frames."
            except SourceError as error:
                cause = error.cause
            self._reader.close()
            if not self._trouble:
                log.warning("%s Trying again.", cause)
            self._trouble = cause
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _drain_live(self) -> int:
        """Until the camera is lost; the number of frames it gave."""
        count = 0
        while not self._closed.is_set():
            image = self._reader.read()
            if image is None:
                break
            self._trouble = ""
            count += 1
            if self._is_due():
                self._put(image, "")
        return count

    def _put(self, image: Image, label: str) -> None:
        with self._changed:
            if len(self._queue) >= self._capacity:
                if self._reader.live:
                    self._queue.popleft()
                    self._dropped += 1
                else:
                    self._changed.wait_for(
                        lambda: self._closed.is_set() or len(self._queue) < self._capacity
                    )
            if self._closed.is_set():
                return
            self._queue.append(Frame(self._number, image, label))
            self._number += 1
            self._changed.notify()

    def _wait_until_due(self) -> None:
        if not self._period_s:
            return
        now = time.monotonic()
        if now - self._due > LAG_S:
            self._due = now
        self._pause(self._due - now)
        self._due += self._period_s

    def _is_due(self) -> bool:
        if not self._period_s:
            return True
        now = time.monotonic()
        # Half a period of slack: a camera that runs at the asked rate must not lose every second
        # frame to jitter.
        if now < self._due - self._period_s / 2:
            return False
        self._due = max(self._due, now - self._period_s / 2) + self._period_s
        return True

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(self._closed.is_set, timeout=max(seconds, 0.0))
