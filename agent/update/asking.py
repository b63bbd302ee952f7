"""Asking for what is kept for a topic: of the broker, or of the server where the broker keeps none.

Whoever wants a retained message subscribes here as on any link. Where retained messages reach this
device, that is all. Where they do not, the same call becomes a request to the server, whose answer
comes on a topic of the device's own and is handed on as if the broker had sent it; so nobody above
needs to know.

Which it is, is found out on each connection: the server's report on its broker is itself a retained
message. If it comes as one, retained messages work here; if it comes only when the server is asked
for it, they do not. Until either is known they are taken to work.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from agent.update.ports import Clock, Link
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.delivery import (
    MAX_TOPICS_PER_REQUEST,
    BrokerReport,
    DeliveryMode,
    TopicRequest,
)
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import ChunkRequest
from edge_sdk.delivery.choice import choose
from edge_sdk.delivery.pace import backoff_s
from edge_sdk.delivery.parts import Assembly
from edge_sdk.errors import ContractError

log = logging.getLogger(__name__)

GRACE_S = 3.0
"""The report is waited for this long before the server is asked for it."""
ANSWER_S = 4.0
"""An answer that has not come by then is asked for again; doubles with each attempt."""
ANSWER_MAX_S = 120.0
GOING_TOPICS = 4
"""So many topics that have served are left in one packet..."""
GOING_S = 1.0
"""...or fewer, this late; meanwhile what is published on them comes again."""
TOPICS_PER_PACKET = 8
"""Some brokers take no more subscriptions at a time."""
MAX_REPORT_BYTES = 4096
MAX_REQUEST_CHUNKS = 64


@dataclass(slots=True)
class _Open:
    """A question to the server."""

    deadline: float
    attempts: int = 0


class Asking:
    """A link on which what is kept can be asked for, whatever the broker; implements ``Link``.

    Args:
        link: the broker.
        topics: the tenant's layout.
        device_id: who asks.
        clock: time.
        greeted: called when the server has just connected to the broker, with its report.
    """

    def __init__(
        self,
        link: Link,
        topics: Topics,
        device_id: str,
        clock: Clock,
        greeted: Callable[[BrokerReport], None] = lambda _: None,
    ) -> None:
        self._link, self._topics, self._device_id = link, topics, device_id
        self._clock, self._greeted = clock, greeted
        self._report: BrokerReport | None = None
        self._kept: bool | None = None
        self.choice = choose(None, None)
        """Which way is taken, and why."""
        self._look_at = inf
        self._held: dict[str, None] = {}
        self._subscribed: set[str] = set()
        """Chunk topics."""
        self._coming: dict[str, None] = {}
        """Chunk topics to subscribe to..."""
        self._going: dict[str, None] = {}
        """...and to unsubscribe from, a few in one packet; each packet costs the broker."""
        self._going_at = 0.0
        self._open: dict[str, _Open] = {}
        self._queue: dict[str, None] = {}
        self._assembly = Assembly()

    @property
    def _asks_server(self) -> bool:
        return self.choice.mode is DeliveryMode.RESPONSE

    @property
    def report(self) -> BrokerReport:
        """What the server said last of its broker, where that is of use here."""
        return self._report if self._report and not self._asks_server else BrokerReport()

    # --- Link ---

    def subscribe(self, topic: str | Sequence[str], qos: int = 0) -> None:
        """Ask for what is kept for topics, and for what is published on them."""
        for each in [topic] if isinstance(topic, str) else topic:
            self._subscribe(each, qos)

    def unsubscribe(self, topic: str | Sequence[str]) -> None:
        """Want topics no more."""
        for each in [topic] if isinstance(topic, str) else topic:
            self._unsubscribe(each)

    def _subscribe(self, topic: str, qos: int) -> None:
        if self._topics.carries_chunks(topic):
            if self._asks_server:
                self._ask(topic, deadline=inf)
            else:
                self._coming[topic] = None
            return
        self._link.subscribe(topic, qos)
        if self._is_kept(topic):
            self._held[topic] = None
            if self._asks_server:
                self._ask(topic, deadline=0.0)

    def _unsubscribe(self, topic: str) -> None:
        for known in (self._held, self._queue, self._open):
            known.pop(topic, None)
        self._assembly.drop(topic)
        self._coming.pop(topic, None)
        if topic in self._subscribed:
            self._subscribed.discard(topic)
            self._going[topic] = None
        elif not self._topics.carries_chunks(topic):
            self._link.unsubscribe(topic)

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> object:
        """Send one message."""
        return self._link.publish(topic, payload, qos, retain)

    # --- chunks ---

    def request(self, digest: str, indexes: list[int]) -> None:
        """Have the server send chunks that should have come."""
        if self._asks_server:
            for index in indexes:
                self._ask(self._topics.chunk(digest, index), deadline=inf)
            return
        for start in range(0, len(indexes), MAX_REQUEST_CHUNKS):
            request = ChunkRequest(
                device_id=self._device_id,
                digest=digest,
                chunks=tuple(indexes[start : start + MAX_REQUEST_CHUNKS]),
            )
            self._link.publish(self._topics.request(self._device_id), encode(request), qos=1)

    # --- calls of the owner ---

    def on_connected(self) -> None:
        """Find out anew what this connection can do; until then things are as they were."""
        for known in (self._subscribed, self._coming, self._going):
            known.clear()
        self._open.clear()
        self._queue.clear()
        self._assembly.clear()
        self._link.subscribe(self._topics.broker(), qos=1)
        if self._asks_server:
            self._link.subscribe(self._topics.responses(self._device_id), qos=0)
        self._begin_looking()

    def on_disconnected(self) -> None:
        """Nothing comes any more."""
        self._look_at = inf

    def on_message(self, topic: str, payload: bytes, retained: bool) -> tuple[str, bytes] | None:
        """A message as whoever asked for it expects it; None when it is not for anybody."""
        if topic == self._topics.broker():
            self._on_report(payload, kept=True if retained else None)
            return None
        parsed = self._topics.parse_response(self._device_id, topic)
        if parsed is None:
            return topic, payload
        part, parts, about = parsed
        if about not in self._open:
            return None
        whole = self._assembly.take(about, part, parts, payload)
        if whole is None:
            return None
        del self._open[about]
        if about == self._topics.broker():
            self._on_report(whole, kept=False)
            return None
        return (about, whole) if whole else None

    def tick(self) -> None:
        """Timers; then everything that is to be asked for leaves in as few messages as it takes."""
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._look_at = inf
            self._link.subscribe(self._topics.responses(self._device_id), qos=0)
            self._ask(self._topics.broker(), deadline=0.0)
        for topic, question in self._open.items():
            if question.deadline <= now:
                self._queue[topic] = None
        if self._coming or now >= self._going_at + GOING_S:
            self._move(now)
        while self._queue:
            self._send(list(self._queue)[:MAX_TOPICS_PER_REQUEST], now)

    def _move(self, now: float) -> None:
        """Leave topics that have served, then ask for the next: one may be among both."""
        again = not self._going.keys().isdisjoint(self._coming)
        if again or len(self._going) >= GOING_TOPICS or now >= self._going_at + GOING_S:
            self._going_at = now
            self._in_packets(self._going, self._link.unsubscribe)
        self._subscribed.update(self._coming)
        self._in_packets(self._coming, self._link.subscribe)

    def _in_packets(self, topics: dict[str, None], act: Callable[[list[str]], object]) -> None:
        listed = list(topics)
        topics.clear()
        for start in range(0, len(listed), TOPICS_PER_PACKET):
            act(listed[start : start + TOPICS_PER_PACKET])

    # --- finding out ---

    def _begin_looking(self) -> None:
        self._look_at = self._clock.monotonic() + GRACE_S

    def _on_report(self, payload: bytes, *, kept: bool | None) -> None:
        """Take in the server's report.

        Args:
            kept: whether it came from the broker's memory (True) or from the server (False); None
                when the server has just published it, which says nothing about memory.
        """
        if not payload or len(payload) > MAX_REPORT_BYTES:
            return
        try:
            report = decode(payload, BrokerReport, "the server's report on the broker")
        except ContractError as error:
            log.warning("%s", error.cause)
            return
        self._report = report
        if kept is None:
            self._greeted(report)
            self._look_again()
        else:
            self._kept, self._look_at = kept, inf
            self._open.pop(self._topics.broker(), None)
        self._decide()

    def _look_again(self) -> None:
        if self._kept is not True:
            self._link.unsubscribe(self._topics.broker())
            self._link.subscribe(self._topics.broker(), qos=1)
            self._begin_looking()

    def _decide(self) -> None:
        before, self.choice = self.choice, choose(self._report, self._kept)
        if self.choice == before:
            return
        log.info("chunks come by %s: %s", self.choice.mode, self.choice.reason)
        if self.choice.mode is before.mode:
            return
        if self._asks_server:
            self._link.subscribe(self._topics.responses(self._device_id), qos=0)
            for topic in self._held:
                self._ask(topic, deadline=0.0)
            for topic in [*self._subscribed, *self._coming]:
                self._unsubscribe(topic)
                if self._topics.parse_chunk(topic):  # spans, when they do not come, go by chunks
                    self._ask(topic, deadline=inf)

    # --- the server ---

    def _is_kept(self, topic: str) -> bool:
        """Whether the server keeps something for a topic, so that asking for it makes sense."""
        return topic == self._topics.desired(self._device_id) or self._topics.below(
            topic
        ).startswith("tuf/")

    def _ask(self, topic: str, deadline: float) -> None:
        """Ask at the next tick; whoever sets no deadline repeats the question himself."""
        self._open[topic] = _Open(deadline)
        self._queue[topic] = None

    def _send(self, topics: list[str], now: float) -> None:
        for topic in topics:
            del self._queue[topic]
            question = self._open[topic]
            if question.deadline < inf:
                wait = backoff_s(question.attempts, ANSWER_S, ANSWER_MAX_S, random.random())
                question.deadline, question.attempts = now + wait, question.attempts + 1
        below = tuple(self._topics.below(topic) for topic in topics)
        request = TopicRequest(device_id=self._device_id, topics=below)
        self._link.publish(self._topics.want(self._device_id), encode(request), qos=0)
