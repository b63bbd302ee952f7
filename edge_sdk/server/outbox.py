"""What goes to the broker, one message after the other, in one thread.

Desired states go first, then chunks that devices ask for, then the bulk: seeding and clearing of
releases in the order it was asked for. A queued desired state names only the device; its bytes are
read from the database when it is sent, so an older one can never follow a newer one.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from edge_sdk.bundle.blobs import chunk_count
from edge_sdk.contracts.trust import TimeRequest
from edge_sdk.contracts.update import ChunkRequest
from edge_sdk.errors import EdgeError
from edge_sdk.server.fleet import Fleet

log = logging.getLogger(__name__)

MAX_REQUESTED = 4096
"""Chunks that may wait to be sent again; devices repeat what was dropped."""
MAX_PER_REQUEST = 64
DRAIN_SECONDS = 30.0

Step = Callable[[], None]


class Sender(Protocol):
    """The broker as the outbox sees it; :class:`~edge_sdk.server.link.Link` is the real one."""

    def send(self, topic: str, payload: bytes, *, retain: bool = True) -> bool:
        """Publish a message; False when there is no connection."""

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything sent has been acknowledged."""


class Outbox:
    """The courier between the fleet and the broker.

    Args:
        fleet: asked for desired states, chunks and the plan of what to seed.
        sender: carries messages.
    """

    def __init__(self, fleet: Fleet, sender: Sender) -> None:
        self._fleet = fleet
        self._sender = sender
        self._changed = threading.Condition()
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._requested: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._questions: OrderedDict[str, TimeRequest] = OrderedDict()
        self._bulk: deque[Iterator[Step]] = deque()
        self._servable: dict[str, int] = {}
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self.chunks_sent = 0

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is queued is published again at the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(10)

    def connected(self) -> None:
        """A new connection: the broker may have lost everything, so publish all of it again."""
        with self._changed:
            self._urgent.clear()
            self._requested.clear()
            self._bulk.clear()
            self._bulk.append(self._everything())
            self._changed.notify_all()

    def seed(self, releases: Sequence[str]) -> None:
        """Publish the chunks of releases."""
        self._append(self._seeding(releases))

    def clear(self, releases: Sequence[str]) -> None:
        """Remove the chunks of releases that are not wanted any more."""
        if releases:
            self._append(self._clearing(releases))

    def desired(self, devices: Sequence[str], *, after_seeding: bool) -> None:
        """Publish the newest desired state of devices."""
        if after_seeding:
            self._append(self._promote(devices))
            return
        with self._changed:
            self._urgent.update((device, None) for device in devices)
            self._changed.notify_all()

    def chunks(self, request: ChunkRequest) -> None:
        """Publish chunks again, as far as they belong to a release that is on the broker."""
        with self._changed:
            if request.digest not in self._servable:
                return
            for index in request.chunks[:MAX_PER_REQUEST]:
                if len(self._requested) >= MAX_REQUESTED:
                    return
                self._requested[request.digest, index] = None
            self._changed.notify_all()

    def metadata(self) -> None:
        """Publish the TUF metadata as it is now, before what waits in bulk."""
        with self._changed:
            self._bulk.appendleft(self._metadata())
            self._changed.notify_all()

    def time(self, request: TimeRequest) -> None:
        """Answer a device's question for the time: its newest one, before anything else."""
        with self._changed:
            if len(self._questions) < MAX_REQUESTED:
                self._questions[request.device_id] = request
                self._changed.notify_all()

    def idle(self) -> bool:
        """Whether nothing is left to send."""
        with self._changed:
            waiting = self._questions or self._urgent or self._requested or self._bulk
            return not (waiting or self._busy)

    def _append(self, steps: Iterator[Step]) -> None:
        with self._changed:
            self._bulk.append(steps)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(
                    lambda: (
                        self._stopping
                        or self._questions
                        or self._urgent
                        or self._requested
                        or self._bulk
                    )
                )
                if self._stopping:
                    return
                self._busy = True
            try:
                self._one()
            except (EdgeError, OSError) as error:
                log.error("cannot publish: %s", error)
            except Exception:
                log.exception("the outbox met an unexpected error")

    def _one(self) -> None:
        """Send one message, the most urgent there is."""
        with self._changed:
            question = self._questions.popitem(last=False)[1] if self._questions else None
        if question is not None:
            self._sender.send(*self._fleet.desk.time_message(question), retain=False)
            return
        with self._changed:
            device = self._urgent.popitem(last=False)[0] if self._urgent else None
            wanted = None
            if device is None and self._requested:
                wanted = self._requested.popitem(last=False)[0]
            steps = self._bulk[0] if self._bulk else None
        if device is not None:
            self._send_desired(device)
        elif wanted is not None:
            self._send_chunk(*wanted)
        elif steps is not None:
            self._bulk_step(steps)

    def _bulk_step(self, steps: Iterator[Step]) -> None:
        """Do one step; the job stays at the head of the queue until it has no more."""
        try:
            step = next(steps, None)
        except Exception:
            self._drop(steps)
            raise
        if step is None:
            self._drop(steps)
        else:
            step()

    def _drop(self, steps: Iterator[Step]) -> None:
        """Remove a job, unless a new connection has replaced the queue meanwhile."""
        with self._changed:
            if self._bulk and self._bulk[0] is steps:
                self._bulk.popleft()

    def _metadata(self) -> Iterator[Step]:
        shop, topics = self._fleet.desk.shop, self._fleet.topics
        if shop is None:
            return
        for message in shop.messages(topics):
            yield lambda message=message: self._send(*message)  # type: ignore[misc]
        for topic in shop.outdated(topics):
            yield lambda topic=topic: self._send(topic, b"")  # type: ignore[misc]

    def _send(self, topic: str, payload: bytes) -> None:
        self._sender.send(topic, payload)

    def _everything(self) -> Iterator[Step]:
        yield from self._metadata()
        yield from self._promote(self._fleet.desired_devices())
        wanted, unwanted = self._fleet.chunk_plan()
        yield from self._seeding(wanted)
        if unwanted:
            yield from self._clearing(unwanted)

    def _promote(self, devices: Iterable[str]) -> Iterator[Step]:
        for device in list(devices):
            yield lambda device=device: self._send_desired(device)  # type: ignore[misc]

    def _seeding(self, releases: Sequence[str]) -> Iterator[Step]:
        for release in releases:
            sizes = self._sizes(release)
            with self._changed:
                self._servable.update(sizes)
            for digest, size in sizes.items():
                for index in range(chunk_count(size)):
                    yield lambda digest=digest, index=index: self._send_chunk(digest, index)  # type: ignore[misc]

    def _clearing(self, releases: Sequence[str]) -> Iterator[Step]:
        wanted, _ = self._fleet.chunk_plan()
        kept: set[str] = set()
        for release in wanted:
            kept.update(self._sizes(release))
        for release in releases:
            if release in wanted:
                continue
            for digest, size in self._sizes(release).items():
                if digest in kept:
                    continue
                with self._changed:
                    self._servable.pop(digest, None)
                for index in range(chunk_count(size)):
                    yield lambda digest=digest, index=index: self._send_clear(digest, index)  # type: ignore[misc]
        yield lambda: self._note_cleared(releases)

    def _sizes(self, release: str) -> dict[str, int]:
        """The release's blobs; a damaged release is reported and must not hold up the others."""
        try:
            return self._fleet.depot.blobs_of(release)
        except EdgeError as error:
            log.error("release %s cannot be published: %s", release[:12], error)
            return {}

    def _send_desired(self, device: str) -> None:
        message = self._fleet.desired_message(device)
        if message is not None:
            self._sender.send(*message)

    def _send_chunk(self, digest: str, index: int) -> None:
        data = self._fleet.depot.chunk(digest, index)
        if data is not None and self._sender.send(self._fleet.topics.chunk(digest, index), data):
            self.chunks_sent += 1

    def _send_clear(self, digest: str, index: int) -> None:
        self._sender.send(self._fleet.topics.chunk(digest, index), b"")

    def _note_cleared(self, releases: Sequence[str]) -> None:
        if self._sender.drain(DRAIN_SECONDS):
            self._fleet.cleared(releases)
