"""From the broker to the database: a bounded queue and a thread that writes in batches."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from edge_sdk.server.ingest import Incoming

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
MAX_BATCH = 256
POLL_SECONDS = 0.2


class Inbox:
    """Messages on their way to the database.

    Args:
        apply: stores a batch; called from the inbox's own thread.
    """

    def __init__(self, apply: Callable[[Sequence[Incoming]], None]) -> None:
        self._apply = apply
        self._waiting: queue.Queue[Incoming] = queue.Queue(MAX_WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self.dropped = 0
        """Messages lost because the database could not keep up, or could not be written."""

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(10)

    def put(self, topic: str, payload: bytes) -> None:
        """Take a message; never blocks."""
        try:
            self._waiting.put_nowait(Incoming(topic, payload))
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while not self._stopping.is_set():
            batch = self._take()
            if not batch:
                continue
            try:
                self._apply(batch)
            except Exception:
                self.dropped += len(batch)
                log.exception("%d device messages could not be stored", len(batch))

    def _take(self) -> list[Incoming]:
        """What is waiting, at most a batch; waits a moment for the first."""
        try:
            batch = [self._waiting.get(timeout=POLL_SECONDS)]
        except queue.Empty:
            return []
        while len(batch) < MAX_BATCH:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return batch
