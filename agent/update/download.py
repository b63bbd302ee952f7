"""Receiver-driven download of chunks over MQTT.

Each chunk has a topic of its own with a retained message. The device subscribes to a window of
them at a time and unsubscribes as they arrive, so the broker never queues more for it than the
window, however slow it is; unpaced delivery lost 31 to 58 % of the chunks of slow devices on a
broker's default queue, a window none. Transfers are at QoS 0: a hash verifies every chunk and a
lost one is asked for again, which was several times faster than acknowledgements.

Where the broker keeps spans of chunks as well, whole spans are asked for, as many bytes at a time.
Whatever is interrupted, does not come or is wrong goes on chunk by chunk: an interruption then
loses less, and little is fetched twice.

A chunk that does not come is subscribed to once more, and from then on also named in a
:class:`~edge_sdk.contracts.update.ChunkRequest` (a wrong one at once), whose answer is a fresh
publication on the same topic. So a broker that lost its retained messages only costs a request.
Where it keeps none, :mod:`agent.update.asking` turns every subscription into a request.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from agent.update.asking import Asking
from agent.update.limits import UpdateLimits
from agent.update.ports import Clock
from agent.update.riding import MIN_CHUNKS, Riding
from edge_sdk.bundle.blobs import chunk_size
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.contracts.topics import Topics
from edge_sdk.delivery.pace import Pace, backoff_s
from edge_sdk.delivery.spans import next_span
from edge_sdk.delivery.wave import SPAN
from edge_sdk.errors import TrustError

SLOW_ANSWERS = 2.0
"""A chunk is overdue after this many times what answers take."""
UNKNOWN_ANSWERS = 5.0
"""Before any answer, after this many times the configured wait."""
SMOOTHING = 8

ChunkId = tuple[str, int]
"""Blob digest and chunk index."""


class Ask(NamedTuple):
    """What one message brings."""

    digest: str
    first: int
    span: int = 1
    """Chunks from this one on, as far as there are so many."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk whose hash holds."""

    ref: BlobRef
    index: int
    data: bytes


@dataclass(slots=True)
class _Awaited:
    asked_at: float
    deadline: float = 0.0
    attempts: int = 0
    bad: int = 0
    subscribed: bool = True


class Downloader:
    """Fetches a set of chunks; the caller stores what :meth:`on_chunk` returns."""

    def __init__(
        self, link: Asking, riding: Riding, topics: Topics, clock: Clock, limits: UpdateLimits
    ) -> None:
        self._link, self._riding, self._topics = link, riding, topics
        self._clock, self._limits = clock, limits
        self._refs: dict[str, BlobRef] = {}
        self._queue: deque[ChunkId] = deque()
        self._awaited: dict[Ask, _Awaited] = {}
        self._landing: deque[Piece] = deque()
        """What has come and is being handed on."""
        self._connected = self._held = False
        self._careful = False
        """Chunk by chunk, since something has been interrupted."""
        self._bytes_per_s = limits.max_bytes_per_s
        self._pace = Pace(self._bytes_per_s)
        self._answer_s = UNKNOWN_ANSWERS * limits.chunk_timeout_s / SLOW_ANSWERS
        """How long an answer takes, smoothed; at first a guess, since a fleet may have just begun
        together, and asking twice would make a busy broker busier."""
        self._last_good = clock.monotonic()
        self.bytes_received = 0
        """Everything that arrived since the agent started, wanted or not."""
        self.retries = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to fetch."""
        return not (self._queue or self._awaited or self._landing or self._riding.under_way)

    @property
    def stalled_s(self) -> float:
        """Seconds since the last good chunk, or since :meth:`start`; none while held."""
        return 0.0 if self._held else self._clock.monotonic() - self._last_good

    def remaining(self, digest: str) -> int:
        """Chunks of one blob that have not arrived."""
        awaited = sum(len(self._chunks(ask)) for ask in self._awaited if ask.digest == digest)
        landing = sum(1 for piece in self._landing if piece.ref.digest == digest)
        queued = sum(1 for known, _ in self._queue if known == digest)
        return awaited + landing + queued + self._riding.remaining(digest)

    def start(self, wanted: Iterable[tuple[BlobRef, Iterable[int]]]) -> None:
        """Fetch these chunks, in this order, instead of whatever was being fetched."""
        self.stop()
        listed = [(ref, list(missing)) for ref, missing in wanted]
        self._careful = any(0 < len(missing) < len(ref.chunks) for ref, missing in listed)
        self.add(listed)

    def add(self, wanted: Iterable[tuple[BlobRef, Iterable[int]]]) -> None:
        """Fetch these chunks as well; none of them may be on its way already."""
        for ref, missing in wanted:
            self._refs[ref.digest] = ref
            indexes = list(missing)
            if self._rides(ref, len(indexes)):
                self._riding.board(ref.digest, indexes, self._link.report)
            else:
                self._queue.extend((ref.digest, index) for index in indexes)
        self._last_good = self._clock.monotonic()
        self._fill()

    def limit(self, bytes_per_s: int) -> int:
        """Keep to this as well as to the device's own bound (0 for none); the one that holds."""
        bounds = [bound for bound in (bytes_per_s, self._limits.max_bytes_per_s) if bound]
        self._bytes_per_s = min(bounds, default=0)
        self._pace = Pace(self._bytes_per_s)
        return self._bytes_per_s

    def stop(self) -> None:
        """Want nothing any more."""
        self._drop(list(self._awaited))
        self._riding.leave_all()
        self._riding.take_back()
        self._refs.clear()
        self._queue.clear()
        self._landing.clear()

    def on_connected(self) -> None:
        """Subscribe to the whole window anew: a clean session has no subscriptions."""
        self._connected = True
        for ask, awaited in self._awaited.items():
            awaited.subscribed = False
            self._subscribe(ask, awaited)
        self._fill()

    def on_disconnected(self) -> None:
        """Stop the clocks of the window until the broker is back."""
        self._connected = False
        self._careful = self._careful or not self.done
        self._split([ask for ask in self._awaited if ask.span > 1])
        self._riding.leave_all()
        self._queue.extend(self._riding.take_back())

    def hold(self, held: bool) -> None:
        """Ask for nothing for now, or go on with what is missing."""
        if held == self._held:
            return
        self._held = held
        self._last_good = self._clock.monotonic()
        if held:
            self._riding.leave_all()
            self._split(list(self._awaited))
        self._fill()

    def on_chunk(self, topic: str, payload: bytes) -> Iterator[Piece]:
        """Take in a message, chunk by chunk as the caller stores them; none that is not wanted now.

        Only what has been yielded no longer counts as :meth:`remaining`.

        Raises:
            TrustError: ``trust.bad-chunk``: wrong bytes came too often for one chunk.
        """
        parsed = self._topics.parse_chunk(topic) or self._topics.parse_span(topic)
        if parsed is None:
            yield from self._on_wave(topic, payload)
            return
        self.bytes_received += len(payload)
        ask = Ask(*parsed)
        awaited = self._awaited.get(ask)
        if awaited is None or not payload:  # an empty payload clears a retained message
            return
        self._take_in(ask, awaited, payload)
        while self._landing:
            yield self._landing.popleft()

    def tick(self) -> None:
        """Ask again for what is overdue, and for more where the pace allows it."""
        if not self._connected:
            return
        self._riding.tick()
        self._fill()
        now = self._clock.monotonic()
        overdue = [ask for ask, awaited in self._awaited.items() if awaited.deadline <= now]
        requests: dict[str, list[int]] = defaultdict(list)
        for ask in overdue:
            awaited = self._awaited[ask]
            awaited.attempts += 1
            self.retries += len(self._chunks(ask))
            if awaited.attempts > 1 and ask.span > 1:
                self._careful = True
                self._split([ask])
                continue
            self._subscribe(ask, awaited)
            if awaited.attempts > 1:
                requests[ask.digest].append(ask.first)
        for digest, indexes in requests.items():
            self._link.request(digest, indexes)

    def _take_in(self, ask: Ask, awaited: _Awaited, payload: bytes) -> None:
        """Keep the chunks of a message that are right, ask for others again, and for the next."""
        ref, wrong = self._refs[ask.digest], []
        for step, chunk in enumerate(self._chunks(ask)):
            data = payload[step * CHUNK_BYTES : (step + 1) * CHUNK_BYTES]
            if holds(ref, chunk[1], data if ask.span > 1 else payload):
                self._landing.append(Piece(ref, chunk[1], data))
            else:
                wrong.append(chunk)
        if wrong and ask.span == 1:
            self._bad(ask, awaited)
            return
        self._drop([ask])
        if wrong:
            self._careful = True
            self.retries += len(wrong)
            self._queue.extendleft(reversed(wrong))
        now = self._clock.monotonic()
        if self._landing:
            self._last_good = now
        self._answer_s += (now - awaited.asked_at - self._answer_s) / SMOOTHING
        self._fill()

    def _rides(self, ref: BlobRef, missing: int) -> bool:
        """Whether to wait for a wave: not for little, and not where the pace is bounded."""
        free = self._connected and not self._held and not self._bytes_per_s
        most = missing >= MIN_CHUNKS and 2 * missing > len(ref.chunks)
        return free and most and self._link.report.gather_s > 0

    def _on_wave(self, topic: str, payload: bytes) -> Iterator[Piece]:
        """A message of a wave; a chunk with wrong bytes is fetched later, the usual way."""
        parsed = self._topics.parse_wave(topic)
        if parsed is None:
            return
        digest, index = parsed
        if index is None:
            self._riding.on_notice(digest, payload)
            self._fill()
            return
        self.bytes_received += len(payload)
        ref = self._refs.get(digest)
        left = len(ref.chunks) - index if ref is not None else 0
        count = min(max(-(-len(payload) // CHUNK_BYTES), 1), SPAN, left)
        for step in range(count):
            data = payload[step * CHUNK_BYTES : (step + 1) * CHUNK_BYTES]
            wanted = self._riding.wants(digest, index + step)
            taken = wanted and holds(self._refs[digest], index + step, data)
            self._riding.passed(digest, index + step, taken=taken)
            if taken:
                self._last_good = self._clock.monotonic()
                yield Piece(self._refs[digest], index + step, data)

    def _fill(self) -> None:
        """Ask for the next chunks, half a window at a time: each packet costs the broker."""
        self._queue.extend(self._riding.take_back())
        on_their_way = self._on_their_way
        if on_their_way > self._limits.window // 2:
            return
        now = self._clock.monotonic()
        while self._connected and not self._held and self._queue and self._pace.allows(now):
            ask = self._next()
            chunks = self._chunks(ask)
            on_their_way += len(chunks)
            if on_their_way > self._limits.window:
                return
            for chunk in chunks:
                self._queue.popleft()
                self._pace.spend(chunk_size(self._refs[ask.digest], chunk[1]), now)
            awaited = self._awaited[ask] = _Awaited(now, subscribed=False)
            self._subscribe(ask, awaited)

    @property
    def _on_their_way(self) -> int:
        return sum(len(self._chunks(ask)) for ask in self._awaited)

    def _next(self) -> Ask:
        """What to ask for next: a span where that is possible, and nothing speaks against it."""
        digest, index = self._queue[0]
        span = self._link.report.span
        if self._careful or self._bytes_per_s or span > self._limits.window:
            span = 1
        return Ask(digest, index, next_span(self._queue, len(self._refs[digest].chunks), span))

    def _chunks(self, ask: Ask) -> list[ChunkId]:
        end = min(ask.first + ask.span, len(self._refs[ask.digest].chunks))
        return [(ask.digest, index) for index in range(ask.first, end)]

    def _drop(self, asks: list[Ask]) -> None:
        """Do not wait for these messages any more."""
        for ask in asks:
            if self._awaited.pop(ask).subscribed:
                self._link.unsubscribe(self._topics.chunk(*ask))

    def _split(self, asks: list[Ask]) -> None:
        """Do not wait for these messages any more, but want their chunks before any others."""
        chunks = [chunk for ask in asks for chunk in self._chunks(ask)]
        self._drop(asks)
        self._queue.extendleft(reversed(chunks))

    def _subscribe(self, ask: Ask, awaited: _Awaited) -> None:
        """Subscribe anew, since not every broker repeats a retained message to an old one."""
        topic = self._topics.chunk(*ask)
        if awaited.subscribed:
            self._link.unsubscribe(topic)
        self._link.subscribe(topic, 0)
        awaited.subscribed = True
        awaited.deadline = self._clock.monotonic() + self._patience(awaited)

    def _patience(self, awaited: _Awaited) -> float:
        most = self._limits.chunk_backoff_max_s
        first = min(max(self._limits.chunk_timeout_s, SLOW_ANSWERS * self._answer_s), most)
        return backoff_s(awaited.attempts, first, most, random.random())

    def _bad(self, ask: Ask, awaited: _Awaited) -> None:
        awaited.bad += 1
        if awaited.bad >= self._limits.max_bad_chunks:
            raise TrustError(
                "bad-chunk",
                f"Chunk {ask.first} of blob {ask.digest[:12]} came with wrong bytes"
                f" {awaited.bad} times.",
                "Somebody else publishes on its topic, or the server's copy is damaged: check the"
                " broker's access rules and publish the release again.",
            )
        self._link.unsubscribe(self._topics.chunk(*ask))
        awaited.subscribed = False
        awaited.deadline = self._clock.monotonic() + self._patience(awaited)
        self.retries += 1
        self._link.request(ask.digest, [ask.first])


def holds(ref: BlobRef, index: int, payload: bytes) -> bool:
    """Whether these bytes are that chunk."""
    right_size = len(payload) == chunk_size(ref, index)
    return right_size and hashlib.sha256(payload).hexdigest() == ref.chunks[index]
