"""The agent's MQTT connection: paho's network thread on one side, a bounded inbox on the other.

The supervisor is single-threaded. Incoming messages wait in an inbox that wakes the supervisor's
selector; nothing of the product runs in paho's thread. Overflow drops the newest message and counts
it, which is safe: chunks are asked for again, and retained states come with the next connection.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.config import BrokerConfig, read_password, tls_files
from edge_sdk.tls import client_context, explain

INBOX_MESSAGES = 1024
QUEUED_MESSAGES = 512
"""Unacknowledged messages of a connection that has just broken without our knowing."""
HELD_TOPICS = 16
"""Topics whose newest message waits for the broker."""
RECONNECT_MIN_S = 1
RECONNECT_MAX_S = 30


@dataclass(frozen=True, slots=True)
class Message:
    """One incoming message."""

    topic: str
    payload: bytes
    retained: bool = False
    """The broker had kept it."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us; subscriptions must be made again."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; paho is trying again."""

    reason: str


Incoming = Message | Connected | Disconnected


class MqttLink:
    """A reconnecting client.

    Args:
        broker: where and as whom to connect.
        client_id: unique per device; a second holder makes the broker drop the first.
        will: ``(topic, payload)`` that the broker publishes, retained, when we vanish.
    """

    def __init__(self, broker: BrokerConfig, client_id: str, will: tuple[str, bytes]) -> None:
        self._broker = broker
        self._inbox: deque[Incoming] = deque()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._connected = threading.Event()
        self._held: OrderedDict[str, tuple[bytes, int, bool]] = OrderedDict()
        self._may_flush = False
        self._last: paho.MQTTMessageInfo | None = None
        self._problem = ""
        """The latest reason why there is no connection; told once."""
        self.dropped = 0
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=True
        )
        client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        client.max_queued_messages_set(QUEUED_MESSAGES)
        client.will_set(*will, qos=1, retain=True)
        _authenticate(client, broker)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log
        client.on_message = self._on_message
        self._client = client

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us."""
        return self._connected.is_set()

    def start(self) -> None:
        """Begin connecting in the background; an absent broker is not an error here."""
        self._client.connect_async(self._broker.host, self._broker.port, self._broker.keepalive_s)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect and free the descriptors."""
        self._client.disconnect()
        self._client.loop_stop()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def fileno(self) -> int:
        """Readable when the inbox has something."""
        return self._wake_read

    def poll(self) -> list[Incoming]:
        """Everything that came in since the last call, in order.

        What waited for the broker leaves one call after :class:`Connected`, so that what the owner
        publishes on connecting replaces what is outdated.
        """
        if self._may_flush:
            self._flush_held()
        with self._lock:
            items = list(self._inbox)
            self._inbox.clear()
            try:
                while os.read(self._wake_read, 4096):
                    pass
            except BlockingIOError:
                pass
        self._may_flush = self._may_flush or any(isinstance(item, Connected) for item in items)
        return items

    def subscribe(self, topic: str | Sequence[str], qos: int = 0) -> None:
        """Ask for topics; silently void while offline, so repeat on :class:`Connected`."""
        topics = [topic] if isinstance(topic, str) else topic
        self._client.subscribe([(each, qos) for each in topics])

    def unsubscribe(self, topic: str | Sequence[str]) -> None:
        """Stop asking for topics."""
        self._client.unsubscribe([topic] if isinstance(topic, str) else list(topic))

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> bool:
        """Send; while offline QoS 0 is dropped, and of QoS 1 the newest per topic waits.

        Returns:
            Whether the message was sent or waits to be sent.
        """
        self._held.pop(topic, None)
        if self.connected:
            return self._send(topic, payload, qos, retain)
        if not qos:
            return False
        self._held[topic] = (payload, qos, retain)
        while len(self._held) > HELD_TOPICS:
            self._held.popitem(last=False)
        return True

    def _send(self, topic: str, payload: bytes, qos: int, retain: bool) -> bool:
        message = self._client.publish(topic, payload, qos, retain)
        waits = qos > 0 and message.rc == paho.MQTT_ERR_NO_CONN
        accepted = message.rc == paho.MQTT_ERR_SUCCESS or waits
        if accepted:
            self._last = message
        return accepted

    def _flush_held(self) -> None:
        self._may_flush = False
        while self._held and self.connected:
            topic, (payload, qos, retain) = self._held.popitem(last=False)
            self._send(topic, payload, qos, retain)

    def flush(self, timeout_s: float) -> None:
        """Give the last published message a bounded chance to leave."""
        self._flush_held()
        if self.connected and self._last is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                self._last.wait_for_publish(timeout_s)

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._away(str(reason))
            return
        self._problem = ""
        self._connected.set()
        self._put(Connected())

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        was_connected = self._connected.is_set()
        self._connected.clear()
        if was_connected:
            self._problem = ""
            self._put(Disconnected(str(reason)))
        elif not self._problem:
            self._away(str(reason))

    def _on_connect_fail(self, _c: Any, _u: Any) -> None:
        self._away(explain(sys.exc_info()[1]))  # paho calls this while it handles the exception

    def _on_log(self, _c: Any, _u: Any, level: int, text: str) -> None:
        """A broker that refuses our certificate says so only after the handshake (TLS 1.3)."""
        if level == paho.MQTT_LOG_ERR and not self.connected:
            self._away(explain(text))

    def _away(self, problem: str) -> None:
        """Tell why there is no connection, once for each reason."""
        if problem != self._problem:
            self._problem = problem
            self._put(Disconnected(problem))

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        self._put(Message(message.topic, bytes(message.payload), message.retain))

    def _put(self, item: Incoming) -> None:
        with self._lock:
            if isinstance(item, Message) and len(self._inbox) >= INBOX_MESSAGES:
                self.dropped += 1
                return
            self._inbox.append(item)
            try:
                os.write(self._wake_write, b"x")
            except (BlockingIOError, OSError):
                return


def _authenticate(client: paho.Client, broker: BrokerConfig) -> None:
    """Set user, password and TLS as configured."""
    if broker.username:
        client.username_pw_set(broker.username, read_password(broker))
    if broker.tls_ca:
        client.tls_set_context(client_context(tls_files(broker), time.time()))
