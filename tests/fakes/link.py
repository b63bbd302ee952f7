"""A broker in memory: retained chunk topics, a server that answers requests, and bad weather."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from edge_sdk.bundle.blobs import chunk_count
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import BrokerReport, TopicRequest, WaveCredit
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import ChunkRequest
from edge_sdk.delivery.choice import largest_payload
from edge_sdk.delivery.parts import split
from edge_sdk.delivery.spans import messages


class FakeBroker:
    """Retained messages by topic, and the whole blobs a server could publish again.

    Args:
        topics: the tenant's layout.
        loss: share of deliveries that vanish.
        reorder: deliver each poll's messages in random order.
        seed: of the weather.
    """

    def __init__(
        self, topics: Topics, *, loss: float = 0.0, reorder: bool = False, seed: int = 0
    ) -> None:
        self.topics, self.loss, self.reorder = topics, loss, reorder
        self.retained: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.weather = random.Random(seed)
        self.requests: list[ChunkRequest] = []
        self.answers = True
        self.keeps = True
        """Whether the broker retains what a server publishes again."""
        self.wishes: list[TopicRequest] = []
        self.credits: list[bytes] = []
        self.gathers = False
        """Whether the server sends a wave of one to whoever announces itself."""
        self.retained[topics.broker()] = encode(BrokerReport(max_payload_bytes=CHUNK_BYTES))
        self.answer_time: Callable[[bytes], list[tuple[str, bytes]]] = lambda _: []
        """What comes back when a device asks for the time."""

    def belongs(self, topic: str) -> bytes:
        """What a server would say belongs on a topic."""
        chunk = self.topics.parse_chunk(topic)
        if chunk is None:
            return self.retained.get(topic, b"")
        start = chunk[1] * CHUNK_BYTES
        return self.blobs.get(chunk[0], b"")[start : start + CHUNK_BYTES]

    def seed_blobs(
        self, blobs: Iterable[tuple[str, bytes]], *, retain: bool = True, span: int = 1
    ) -> None:
        """Publish blobs chunk by chunk, and in spans; without ``retain`` only the server has them.

        Args:
            blobs: digest and bytes.
            retain: have the broker keep the chunks.
            span: chunks of the messages that it keeps besides.
        """
        for digest, data in blobs:
            self.blobs[digest] = data
            for index, count in messages(chunk_count(len(data)), span) if retain else ():
                kept = data[index * CHUNK_BYTES : (index + count) * CHUNK_BYTES]
                self.retained[self.topics.chunk(digest, index, count)] = kept


class FakeLink:
    """One device's connection to a :class:`FakeBroker`; implements the updater's Link."""

    def __init__(self, broker: FakeBroker, *, connected: bool = True) -> None:
        self.broker = broker
        self.connected = connected
        self.subscribed: set[str] = set()
        self.reach = True
        """Whether retained messages reach this device."""
        self.widest = 0
        self.delivered_bytes = 0
        self.asked: Counter[str] = Counter()
        self._inbox: list[tuple[str, bytes, bool]] = []

    @property
    def chunks(self) -> set[str]:
        """Chunk topics that are subscribed to."""
        return {topic for topic in self.subscribed if self.broker.topics.carries_chunks(topic)}

    def subscribe(self, topic: str | Sequence[str], qos: int = 0) -> None:
        """Deliver the retained messages, weather permitting."""
        for each in [topic] if isinstance(topic, str) else topic:
            self._subscribe(each)

    def _subscribe(self, topic: str) -> None:
        if not self.connected:
            return
        self.subscribed.add(topic)
        self.asked[topic] += 1
        self.widest = max(self.widest, len(self.chunks))
        if topic in self.broker.retained and self.reach:
            self._deliver(topic, self.broker.retained[topic], retained=True)

    def unsubscribe(self, topic: str | Sequence[str]) -> None:
        """Stop asking."""
        self.subscribed.difference_update([topic] if isinstance(topic, str) else topic)

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        """Play the server: answer chunk requests, and questions for the time."""
        if not self.connected:
            return
        if topic.endswith("/ask"):
            for answer in self.broker.answer_time(payload):
                self._deliver(*answer)
            return
        if topic.endswith("/credit"):
            self.broker.credits.append(payload)
            if self.broker.gathers:
                self._wave(msgspec.json.decode(payload, type=WaveCredit))
            return
        if topic.endswith("/want"):
            self._answer(msgspec.json.decode(payload, type=TopicRequest))
            return
        request = msgspec.json.decode(payload, type=ChunkRequest)
        assert topic == self.broker.topics.request(request.device_id)
        self.broker.requests.append(request)
        data = self.broker.blobs.get(request.digest)
        if data is None or not self.broker.answers:
            return
        for index in request.chunks:
            chunk = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            where = self.broker.topics.chunk(request.digest, index)
            if self.broker.keeps:
                self.broker.retained[where] = chunk
            if where in self.subscribed:
                self._deliver(where, chunk)

    def _answer(self, request: TopicRequest) -> None:
        self.broker.wishes.append(request)
        topics = self.broker.topics
        report = self.broker.retained.get(topics.broker(), b"{}")
        limit = largest_payload(msgspec.json.decode(report, type=BrokerReport))
        for below in request.topics if self.broker.answers else ():
            payload = self.broker.belongs(f"{topics.tenant}/{below}")
            for part, parts, piece in split(payload, limit):
                self._deliver(topics.response(request.device_id, part, parts, below), piece)

    def _wave(self, credit: WaveCredit) -> None:
        data = self.broker.blobs[credit.digest]
        for index in () if credit.seen else range(chunk_count(len(data))):
            chunk = data[index * CHUNK_BYTES :][:CHUNK_BYTES]
            self.receive(self.broker.topics.wave(credit.digest, index), chunk)

    def drop(self) -> None:
        """The connection breaks: subscriptions and messages on their way are gone."""
        self.connected = False
        self.subscribed.clear()
        self._inbox.clear()

    def receive(self, topic: str, payload: bytes) -> None:
        """Somebody publishes on a topic; it comes if it is subscribed to."""
        wildcard = topic.rpartition("/")[0] + "/+"
        if self.connected and self.subscribed & {topic, wildcard}:
            self._deliver(topic, payload)

    def poll(self) -> list[tuple[str, bytes, bool]]:
        """Messages that arrived since the last call, and whether the broker had kept them."""
        items, self._inbox = self._inbox, []
        if self.broker.reorder:
            self.broker.weather.shuffle(items)
        return items

    def _deliver(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        if self.broker.weather.random() < self.broker.loss:
            return
        self.delivered_bytes += len(payload)
        self._inbox.append((topic, payload, retained))
