"""What goes to the broker, one message after the other, in one thread.

Desired states go first, then what devices ask for, then the bulk: seeding and clearing of
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
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import (
    MAX_TOPICS_PER_REQUEST,
    BrokerReport,
    DeliveryMode,
    TopicRequest,
)
from edge_sdk.contracts.trust import TimeRequest
from edge_sdk.contracts.update import ChunkRequest
from edge_sdk.delivery.choice import choose, in_words, largest_payload
from edge_sdk.delivery.parts import split
from edge_sdk.delivery.spans import for_fleet, messages
from edge_sdk.delivery.wave import SPAN
from edge_sdk.errors import EdgeError
from edge_sdk.server.courier import Request
from edge_sdk.server.fleet import Fleet

log = logging.getLogger(__name__)

MAX_REQUESTED = 4096
"""Chunks that may wait to be sent again; devices repeat what was dropped."""
MAX_PER_REQUEST = 64
DRAIN_SECONDS = 30.0

Step = Callable[[], object]


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
        self._wanted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._report: BrokerReport | None = None
        self._questions: OrderedDict[str, TimeRequest] = OrderedDict()
        self._bulk: deque[Iterator[Step]] = deque()
        self._servable: dict[str, int] = {}
        self._fresh: set[tuple[str, int]] = set()
        """Chunks that devices have had published since the connection began: not to be seeded in
        their turn as well, which would send them to those devices twice."""
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

    def connected(self, report: BrokerReport | None = None) -> None:
        """A new connection: the broker may have lost everything, so publish all of it again.

        Args:
            report: what the broker was found to be able to do.
        """
        with self._changed:
            self._report = self._fitted(report)
            self._urgent.clear()
            self._requested.clear()
            self._fresh.clear()
            self._wanted.clear()
            self._bulk.clear()
            self._bulk.append(self._everything())
            self._changed.notify_all()

    def seed(self, releases: Sequence[str]) -> None:
        """Publish the chunks of releases; of all anew, when the fleet has become a large one."""
        report = self._fitted(self._report)
        grown = self._report is not None and report is not None and report.span > self._report.span
        self._append(self._everything() if grown else self._seeding(releases))

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

    def answer(self, request: Request) -> None:
        """Send a device what it asks for, soon; what does not fit is dropped, devices ask again."""
        match request:
            case ChunkRequest():
                self.chunks(request)
            case TopicRequest():
                self.topics(request)
            case TimeRequest():
                self.time(request)

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

    def topics(self, request: TopicRequest) -> None:
        """Answer a device with what belongs on topics, on topics of its own."""
        with self._changed:
            for below in request.topics[:MAX_TOPICS_PER_REQUEST]:
                publishable = below and not set(below) & set("+#\0")
                if publishable and len(self._wanted) < MAX_REQUESTED:
                    self._wanted[request.device_id, below] = None
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
            return not (self._waiting() or self._busy)

    def _waiting(self) -> bool:
        queues = (self._questions, self._urgent, self._wanted, self._requested, self._bulk)
        return any(queues)

    def _append(self, steps: Iterator[Step]) -> None:
        with self._changed:
            self._bulk.append(steps)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._stopping or self._waiting())
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
            wanted = requested = None
            if device is None and self._wanted:
                wanted = self._wanted.popitem(last=False)[0]
            elif device is None and self._requested:
                requested = self._requested.popitem(last=False)[0]
            steps = self._bulk[0] if self._bulk else None
        if device is not None:
            self._send_desired(device)
        elif wanted is not None:
            self._answer(*wanted)
        elif requested is not None:
            self._send_chunk(*requested)
            self._fresh.add(requested)
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
        # Devices ask one by one for what is too large for the broker; see _send_kept.
        for message in shop.messages(topics):
            yield lambda message=message: self._send_kept(*message)  # type: ignore[misc]
        for topic in shop.outdated(topics):
            yield lambda topic=topic: self._send_kept(topic, b"")  # type: ignore[misc]

    def _send_kept(self, topic: str, payload: bytes) -> bool:
        """Have a message kept, unless the broker would refuse its size and us with it."""
        limit, report = largest_payload(self._report), self._report
        if limit is not None and len(payload) > limit:
            return False
        if report is not None and not report.retained:  # some end the connection over the flag
            return self._sender.send(topic, payload, retain=False)
        return self._sender.send(topic, payload)

    def _answer(self, device: str, below: str) -> None:
        """Send a device what belongs on a topic; nothing at all says that there is nothing."""
        topics = self._fleet.topics
        payload = self._belongs(device, f"{topics.tenant}/{below}") or b""
        for part, parts, piece in split(payload, largest_payload(self._report)):
            topic = topics.response(device, part, parts, below)
            if not self._sender.send(topic, piece, retain=False):
                return
        if topics.parse_chunk(f"{topics.tenant}/{below}"):
            self.chunks_sent += 1

    def _belongs(self, device: str, topic: str) -> bytes | None:
        """What the broker keeps for a topic, or should, as far as this device may know it."""
        topics, shop = self._fleet.topics, self._fleet.desk.shop
        chunk = topics.parse_chunk(topic)
        if chunk is not None:
            return self.served(*chunk)
        if topic == topics.desired(device):
            message = self._fleet.desired_message(device)
            return message[1] if message is not None else None
        if topic == topics.broker():
            return encode(self._report) if self._report is not None else None
        return dict(shop.messages(topics)).get(topic) if shop is not None else None

    def served(self, digest: str, index: int) -> bytes | None:
        """A chunk of a release that is on the broker, None of any other."""
        return self._fleet.depot.chunk(digest, index) if self.chunks_of(digest) else None

    def chunks_of(self, digest: str) -> int:
        """How many chunks of a blob are served; 0 where it is not."""
        with self._changed:
            size = self._servable.get(digest)
        return 0 if size is None else chunk_count(size)

    def _fitted(self, report: BrokerReport | None) -> BrokerReport | None:
        """The report for a fleet of the present size."""
        return for_fleet(report, self._fleet.device_count()) if report is not None else None

    def _everything(self) -> Iterator[Step]:
        report = self._report = self._fitted(self._report)
        if report is not None:
            yield lambda: self._note(report)
            yield lambda: self._send_kept(self._fleet.topics.broker(), encode(report))
        yield from self._metadata()
        yield from self._promote(self._fleet.desired_devices())
        wanted, unwanted = self._fleet.chunk_plan()
        yield from self._seeding(wanted)
        if unwanted:
            yield from self._clearing(unwanted)

    def _note(self, report: BrokerReport) -> None:
        several = f", {report.span} to a message" if report.span > 1 else ""
        way = f"{choose(report, None).mode}{several}"
        text = f"The broker: {in_words(report)}; chunks go by {way}."
        log.info("%s", text)
        self._fleet.note_broker(text)

    def _promote(self, devices: Iterable[str]) -> Iterator[Step]:
        for device in list(devices):
            yield lambda device=device: self._send_desired(device)  # type: ignore[misc]

    def _seeding(self, releases: Sequence[str]) -> Iterator[Step]:
        for release in releases:
            sizes = self._sizes(release)
            with self._changed:
                self._servable.update(sizes)
            if choose(self._report, None).mode is DeliveryMode.RESPONSE:
                continue  # devices ask for each chunk; to have the broker keep it is no use
            for digest, size in sizes.items():
                span = self._report.span if self._report is not None else 1
                for index, count in messages(chunk_count(size), span):
                    yield lambda chunk=(digest, index, count): self._seed_chunk(*chunk)  # type: ignore[misc]

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
                for index, count in messages(chunk_count(size), SPAN):  # of a larger fleet, too
                    yield lambda chunk=(digest, index, count): self._send_clear(*chunk)  # type: ignore[misc]
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
            self._send_kept(*message)

    def _seed_chunk(self, digest: str, index: int, span: int) -> None:
        if span == 1 and (digest, index) in self._fresh:
            self._fresh.discard((digest, index))
        else:
            self._send_chunk(digest, index, span)

    def _send_chunk(self, digest: str, index: int, span: int = 1) -> None:
        data = self._fleet.depot.chunk(digest, index, span)
        topic = self._fleet.topics.chunk(digest, index, span)
        if data is not None and self._send_kept(topic, data):
            self.chunks_sent += 1

    def _send_clear(self, digest: str, index: int, span: int) -> None:
        self._fresh.discard((digest, index))
        self._send_kept(self._fleet.topics.chunk(digest, index, span), b"")

    def _note_cleared(self, releases: Sequence[str]) -> None:
        if self._sender.drain(DRAIN_SECONDS):
            self._fleet.cleared(releases)
