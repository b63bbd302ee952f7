"""Waves on their way: gathers riders, then publishes one blob after the other at their pace."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.delivery import WaveCredit, WaveNotice
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.topics import Topics
from edge_sdk.delivery.wave import SPAN, Action, Leave, Over, Send, Wait, Wave
from edge_sdk.errors import ContractError, EdgeError
from edge_sdk.server.outbox import Sender

log = logging.getLogger(__name__)

MAX_WAVES = 256
MAX_CREDIT_BYTES = 1024
IDLE_SECONDS = 1.0


class Waves:
    """Every wave of a server, in a thread of its own.

    Args:
        topics: the tenant's topics.
        sender: carries messages.
        count: chunks of a blob that is being served; 0 of any other.
        chunk: one chunk's bytes, None when it is not served any more.
        gather_s: riders are waited for this long.
        largest: bytes that the broker is known to take in one message.
    """

    def __init__(
        self,
        topics: Topics,
        sender: Sender,
        count: Callable[[str], int],
        chunk: Callable[[str, int], bytes | None],
        gather_s: float,
        largest: Callable[[], int],
    ) -> None:
        self._topics, self._sender = topics, sender
        self._count, self._chunk, self._gather_s = count, chunk, gather_s
        self._largest = largest
        self._changed = threading.Condition()
        self._waves: dict[str, Wave] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="waves", daemon=True)
        self.chunks_sent = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; riders notice the silence."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(10)

    def reset(self) -> None:
        """A new connection: whoever rode has left with the old one."""
        with self._changed:
            self._waves.clear()

    def on_credit(self, topic: str, payload: bytes) -> None:
        """A device joins a wave or has come further; never blocks."""
        sender = self._topics.parse_device(topic)
        if sender is None or len(payload) > MAX_CREDIT_BYTES or not self._gather_s:
            return
        try:
            credit = decode(payload, WaveCredit, "credit")
        except ContractError:
            return
        if credit.device_id != sender[0]:
            return
        with self._changed:
            wave = self._waves.get(credit.digest) or self._new(credit)
            if wave is not None:
                wave.credit(credit.device_id, credit.seen, credit.span)
                self._changed.notify_all()

    def _new(self, credit: WaveCredit) -> Wave | None:
        chunks = self._count(credit.digest)
        if credit.seen or not chunks or len(self._waves) >= MAX_WAVES:
            return None
        span = min(max(self._largest() // CHUNK_BYTES, 1), SPAN)
        wave = Wave(chunks, time.monotonic() + self._gather_s, span)
        self._waves[credit.digest] = wave
        return wave

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                found = self._next()
                if found is None:
                    continue
            try:
                self._do(*found)
            except (EdgeError, OSError) as error:
                log.error("cannot publish a wave: %s", error)
            except Exception:
                log.exception("a wave met an unexpected error")

    def _next(self) -> tuple[str, Action] | None:
        """What to do next, the oldest wave first; waits, and None, when that is nothing.

        The lock is held.
        """
        now = time.monotonic()
        until = now + IDLE_SECONDS
        for digest, wave in self._waves.items():
            action = wave.step(now)
            if not isinstance(action, Wait):
                return digest, action
            until = min(until, action.until_s)
            if wave.sent:
                break  # the next one leaves when this one is over
        self._changed.wait(max(until - now, 0.0))
        return None

    def _do(self, digest: str, action: Action) -> None:
        match action:
            case Send(index, count):
                chunks = [self._chunk(digest, index + step) for step in range(count)]
                data = b"".join(chunk for chunk in chunks if chunk is not None)
                if None in chunks or not self._send(self._topics.wave(digest, index), data):
                    self._end(digest)
                else:
                    self.chunks_sent += count
            case Leave(devices):
                log.info("%d devices are too slow for a wave and leave it", len(devices))
                self._notify(digest, WaveNotice(leave=devices))
            case Over():
                self._end(digest)

    def _end(self, digest: str) -> None:
        with self._changed:
            self._waves.pop(digest, None)
        self._notify(digest, WaveNotice(over=True))

    def _notify(self, digest: str, notice: WaveNotice) -> None:
        self._send(self._topics.wave_notice(digest), encode(notice))

    def _send(self, topic: str, payload: bytes) -> bool:
        return self._sender.send(topic, payload, retain=False)
