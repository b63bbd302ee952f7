"""The server's MQTT connection, kept up by a thread of its own.

Each connection is a new paho client: a client that reconnects would first repeat what was in flight
before, and an old desired state could then overwrite a newer one on the broker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_sdk.errors import ConfigError
from edge_sdk.tls import SYSTEM_FILES, TlsFiles, client_context, explain

log = logging.getLogger(__name__)

BACKOFF_MIN_SECONDS = 0.25
BACKOFF_MAX_SECONDS = 10.0
CONNECT_SECONDS = 10.0
STEADY_SECONDS = 5.0
"""A connection that lasted this long resets the backoff; one that did not was probably taken over
by another client with the same id."""
KEEPALIVE_SECONDS = 30
WINDOW = 16
"""QoS 1 messages that may wait for the broker's acknowledgement; 1 MiB of chunks."""
ACKNOWLEDGE_SECONDS = 30.0
"""A broker that acknowledges nothing for this long with a full window is connected to afresh."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where the broker is and how to sign in."""

    host: str
    port: int
    tls: bool = False
    username: str = ""
    password_file: Path | None = None
    files: TlsFiles = SYSTEM_FILES

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


def parse_broker_url(
    url: str, password_file: Path | None = None, files: TlsFiles | None = None
) -> BrokerAddress:
    """The broker in ``mqtt://[user@]host[:port]`` or ``mqtts://...``.

    Raises:
        ConfigError: ``config.bad-broker-url``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
        raise ConfigError(
            "bad-broker-url",
            f"{url!r} is not the address of an MQTT broker.",
            "Write it as mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS.",
        )
    if parts.password:
        raise ConfigError(
            "bad-broker-url",
            "The broker's address holds a password, which every process list would show.",
            "Put the password into a file and name it with --broker-password-file.",
        )
    tls = parts.scheme == "mqtts"
    return BrokerAddress(
        host=parts.hostname,
        port=port or (8883 if tls else 1883),
        tls=tls,
        username=parts.username or "",
        password_file=password_file,
        files=files or SYSTEM_FILES,
    )


def new_client(address: BrokerAddress, client_id: str) -> paho.Client:
    """A client for one connection, ready to sign in.

    Raises:
        ConfigError: the TLS files cannot be used.
        OSError: the password file cannot be read.
    """
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=False
    )
    if address.username:
        path = address.password_file
        client.username_pw_set(address.username, path.read_text().strip() if path else None)
    if address.tls:
        client.tls_set_context(client_context(address.files, time.time()))
    return client


class Link:
    """A connection that comes back.

    Args:
        address: the broker.
        client_id: must be the server's alone.
        topics: subscribed to at QoS 1 after every connection.
        on_message: called with topic, payload and whether the broker had kept the message, in
            paho's thread; must not block.
        on_connected: called in paho's thread after subscribing; must not block.
        before: called before every attempt to connect, in the link's own thread; may block. The
            client id is free then.
        acknowledge_s: seconds without any acknowledgement before a full window is given up.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        topics: Sequence[str],
        on_message: Callable[[str, bytes, bool], None],
        on_connected: Callable[[], None],
        *,
        before: Callable[[], object] = lambda: None,
        acknowledge_s: float = ACKNOWLEDGE_SECONDS,
    ) -> None:
        self._before = before
        self._address = address
        self._client_id = client_id
        self._topics = topics
        self._deliver = on_message
        self._announce = on_connected
        self._acknowledge_s = acknowledge_s
        self._changed = threading.Condition()
        self._client: paho.Client | None = None
        self._up = False
        self._in_flight = 0
        self._silent = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker-link", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us."""
        return self._up

    def start(self) -> None:
        """Begin connecting; an absent broker is retried with backoff."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stopping.set()
        self._thread.join(CONNECT_SECONDS + 1)

    def send(self, topic: str, payload: bytes, *, retain: bool = True) -> bool:
        """Publish a message at QoS 1, waiting a bounded time while the window is full.

        It is retained, unless it means something only now.

        Returns:
            False when there is no connection, or it was given up because the broker acknowledges
            nothing; nothing has been sent then.

        Raises:
            ValueError: the topic or the payload cannot be published.
        """
        with self._changed:
            room = self._changed.wait_for(
                lambda: not self._up or self._in_flight < WINDOW, self._acknowledge_s
            )
            client = self._client
            if not room:
                self._silent = True  # the link's own thread ends the connection
                self._down()
            if not self._up or client is None:
                return False
            self._in_flight += 1
        # Not under our lock: paho holds one of its own while it reports acknowledgements to us.
        sent = False
        try:
            sent = client.publish(topic, payload, qos=1, retain=retain).rc == paho.MQTT_ERR_SUCCESS
        finally:
            if not sent:
                self._acknowledged(client)
        return sent

    def drain(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged everything sent; False when it has not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._up or self._in_flight == 0, timeout_s)
            return self._up and self._in_flight == 0

    def _run(self) -> None:
        backoff = BACKOFF_MIN_SECONDS
        warned = False
        while not self._stopping.is_set():
            self._before()
            began = time.monotonic()
            problem = self._one_connection()
            if self._stopping.is_set():
                return
            if time.monotonic() - began >= STEADY_SECONDS:
                backoff, warned = BACKOFF_MIN_SECONDS, False
            if not warned:
                log.warning("broker %s: %s; trying again until it is there", self._address, problem)
                warned = True
            self._stopping.wait(backoff)
            backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)

    def _one_connection(self) -> str:
        """Connect and stay until the connection ends; why it ended."""
        ended = threading.Event()
        reasons: list[str] = []
        self._silent = False
        try:
            client = self._new_client(ended, reasons)
            client.connect(self._address.host, self._address.port, KEEPALIVE_SECONDS)
        except ConfigError as error:
            return error.cause
        except (OSError, ValueError) as error:
            return explain(error)
        client.loop_start()
        try:
            self._wait(ended)
        finally:
            self._lost()
            client.disconnect()
            client.loop_stop()
        if self._silent:
            return f"nothing was acknowledged for {self._acknowledge_s:.0f} s"
        return reasons[-1] if reasons else "no answer"

    def _wait(self, ended: threading.Event) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self._stopping.is_set() and not ended.wait(0.1):
            if self._silent or (not self._up and time.monotonic() > deadline):
                return

    def _new_client(self, ended: threading.Event, reasons: list[str]) -> paho.Client:
        client = new_client(self._address, self._client_id)
        refusals: list[str] = []
        client.max_inflight_messages_set(WINDOW)
        client.max_queued_messages_set(WINDOW)

        def disconnected(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            reasons.append(refusals[-1] if refusals else f"connection lost ({reason})")
            self._lost()
            ended.set()

        def connected(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            if reason.is_failure:
                reasons.append(f"connection refused ({reason})")
                ended.set()
            else:
                self._accepted(client)

        def logged(_c: Any, _u: Any, level: int, text: str) -> None:
            # A broker that refuses our certificate says so only after the handshake (TLS 1.3).
            if level == paho.MQTT_LOG_ERR and not self._up:
                refusals.append(explain(text))

        client.on_connect = connected
        client.on_log = logged
        client.on_disconnect = disconnected
        client.on_message = lambda _c, _u, m: self._deliver(m.topic, bytes(m.payload), m.retain)
        client.on_publish = lambda *_: self._acknowledged(client)
        return client

    def _accepted(self, client: paho.Client) -> None:
        client.subscribe([(topic, 1) for topic in self._topics])
        with self._changed:
            self._client, self._up = client, True
            self._in_flight = 0
            self._changed.notify_all()
        log.info("connected to broker %s", self._address)
        self._announce()

    def _acknowledged(self, client: paho.Client) -> None:
        with self._changed:
            if client is self._client and self._in_flight:
                self._in_flight -= 1
                self._changed.notify_all()

    def _lost(self) -> None:
        with self._changed:
            self._down()

    def _down(self) -> None:
        """The connection is of no use any more; the lock is held."""
        self._up = False
        self._in_flight = 0
        self._changed.notify_all()
