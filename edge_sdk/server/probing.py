"""Finding out what the broker can do, before anything is entrusted to it.

A connection of its own asks, before the server's proper one, since a broker may end the connection
of who sends too large a message. What should come is waited for relative to what surely comes: a
plain message that is sent behind it, so that a busy broker is not mistaken for a poor one.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
from msgspec.structs import replace

from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.topics import Topics
from edge_sdk.delivery.choice import choose, in_words
from edge_sdk.delivery.wave import CREDIT_EVERY, SPAN
from edge_sdk.errors import EdgeError
from edge_sdk.server.link import KEEPALIVE_SECONDS, BrokerAddress, new_client

PAYLOADS_BYTES = (SPAN * CHUNK_BYTES, CHUNK_BYTES, 32 * 1024, 16 * 1024, 4 * 1024)
"""Tried in this order until one comes back."""
ANSWER_SECONDS = 10.0
"""A broker that answers nothing for this long is not probed further."""
GRACE_SECONDS = 1.0
"""A kept message may come this much later than the plain one that was sent behind it."""


_News = tuple[str, bool, int]
"""Topic of a message, whether it was kept, and its size."""


class _SilentError(Exception):
    """The broker does not do what every broker must; why."""


class Prober:
    """Probes on demand and remembers what was found.

    Args:
        address: the broker.
        client_id: nobody else may use it during a probe; a broker's access rules may leave no
            choice of it, so it is the server's own.
        topics: the tenant's topics.
        gather_s: how long devices are to wait for a wave; 0 for no waves.
    """

    def __init__(
        self, address: BrokerAddress, client_id: str, topics: Topics, gather_s: float = 0.0
    ) -> None:
        self._address, self._client_id, self._topics = address, client_id, topics
        self._gather_s = gather_s
        self.report = BrokerReport(problem="it has not been reached yet")

    def look(self) -> None:
        """Probe; takes milliseconds on a good broker, some seconds on a poor one."""
        found = probe(self._address, self._client_id, self._topics)
        self.report = replace(found, gather_s=self._gather_s, credit_every=CREDIT_EVERY)

    @property
    def words(self) -> str:
        """What was found last, for a person."""
        choice = choose(self.report, None)
        return f"{in_words(self.report)}; chunks go by {choice.mode}"


def probe(
    address: BrokerAddress,
    client_id: str,
    topics: Topics,
    answer_s: float = ANSWER_SECONDS,
) -> BrokerReport:
    """What a broker can do; never raises, since without an answer one must go on as well."""
    retained = wildcard = True
    try:
        with _Talk.open(address, client_id, topics, answer_s) as talk:
            retained, wildcard = talk.keeps()
        for size in PAYLOADS_BYTES:
            with _Talk.open(address, client_id, topics, answer_s) as talk:
                if talk.carries(size):
                    return BrokerReport(
                        retained=retained, wildcard_retained=wildcard, max_payload_bytes=size
                    )
    except (OSError, ValueError, EdgeError, _SilentError) as error:
        return BrokerReport(retained=retained, wildcard_retained=wildcard, problem=str(error))
    return BrokerReport(
        retained=retained,
        wildcard_retained=wildcard,
        problem=f"not even {PAYLOADS_BYTES[-1]} bytes came back",
    )


class _Talk:
    """One connection: sends, and waits for what comes."""

    def __init__(self, client: paho.Client, topics: Topics, answer_s: float) -> None:
        self._client, self._topics, self._answer_s = client, topics, answer_s
        self._nonce = os.urandom(8).hex()
        self._news: queue.Queue[_News | None] = queue.Queue()
        """None at the end of the connection."""
        client.on_message = lambda _c, _u, m: self._news.put((m.topic, m.retain, len(m.payload)))
        client.on_disconnect = lambda *_: self._news.put(None)

    @classmethod
    @contextmanager
    def open(
        cls, address: BrokerAddress, client_id: str, topics: Topics, answer_s: float
    ) -> Iterator[_Talk]:
        """A connection that the broker has accepted."""
        accepted: queue.Queue[Any] = queue.Queue()
        client = new_client(address, client_id)
        client.on_connect = lambda _c, _u, _f, reason, _p: accepted.put(reason)
        talk = cls(client, topics, answer_s)
        client.connect(address.host, address.port, KEEPALIVE_SECONDS)
        client.loop_start()
        try:
            reason = accepted.get(timeout=answer_s)
            if reason.is_failure:
                raise _SilentError(f"the connection was refused ({reason})")
            yield talk
        except queue.Empty:
            raise _SilentError(f"no answer for {answer_s:.0f} s") from None
        finally:
            client.disconnect()
            client.loop_stop()

    def keeps(self) -> tuple[bool, bool]:
        """Whether a kept message comes to who subscribes to its topic, and by a wildcard."""
        kept, any_nonce = self._topics.probe(self._nonce, "kept"), self._topics.probe("+", "kept")
        self._client.subscribe(self._echo, 1)
        if not self._comes(None):
            raise _SilentError("a plain message did not come back")
        self._client.publish(kept, b"kept", 1, True)
        if not self._comes(None):
            return False, False  # there are brokers that end the connection over it
        self._client.subscribe(kept, 1)
        exact = self._comes((kept, True, 4))
        self._client.unsubscribe(kept)
        self._client.subscribe(any_nonce, 1)
        by_wildcard = exact and self._comes((kept, True, 4))
        self._client.publish(kept, b"", 1, True)
        self._comes(None)
        return exact, by_wildcard

    def carries(self, size: int) -> bool:
        """Whether a message of this size comes back; a refusal may end the connection."""
        topic = self._topics.probe(self._nonce, "size")
        self._client.subscribe([(self._echo, 1), (topic, 1)])
        self._client.publish(topic, bytes(size), 1)
        return self._comes((topic, False, size))

    @property
    def _echo(self) -> str:
        return self._topics.probe(self._nonce, "echo")

    def _comes(self, wanted: _News | None) -> bool:
        """Send a plain message, and say whether the wanted one comes before or soon after it.

        Without one, whether the plain message comes.
        """
        self._client.publish(self._echo, b"echo", 1)
        echo = (self._echo, False, 4)
        found = self._first({echo, wanted} - {None}, self._answer_s)
        if wanted is None or found in (wanted, None):
            return found is not None
        return self._first({wanted}, GRACE_SECONDS) is not None

    def _first(self, right: Collection[_News | None], patience_s: float) -> _News | None:
        """The first of these messages that comes; None when time or connection end before."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                news = self._news.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                return None
            if news is None or news in right:
                return news
