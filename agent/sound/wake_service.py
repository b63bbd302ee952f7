"""A wake-word service for others' microphones, over the Wyoming protocol.

A satellite or Home Assistant connects, sends sound, and is told when a word is heard. To the rest
of the worker it is a file that never ends: the sound of one client at a time.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agent.sound.base import STALL_S
from agent.sound.wyoming import (
    Message,
    MessageReader,
    ProtocolError,
    encode_message,
    info_message,
)
from edge_sdk.audio.samples import BYTES, SoundFormat
from edge_sdk.errors import SourceError

DEFAULT_ADDRESS = "tcp://127.0.0.1:10400"
"""The port that wake-word services usually have; only this machine, unless told otherwise."""
MAX_CLIENTS = 8
READ_BYTES = 64 * 1024
SEND_S = 1.0
LAST_WORDS_S = 0.5
"""After the end of a client's sound its last word may still be on its way to be heard."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Client:
    link: socket.socket
    reader: MessageReader = field(default_factory=MessageReader)
    names: frozenset[str] = frozenset()
    """Words it wants to hear of; all when empty."""
    heard: bool = False
    closes_s: float | None = None
    """When an end of sound without a word is answered."""


class WakeService:
    """Implements :class:`agent.sound.base.SoundReader`.

    Args:
        address: ``tcp://HOST:PORT`` to listen on.
        form: what clients must send.
        words: what can be heard.
    """

    live = False

    def __init__(self, address: str, form: SoundFormat, words: Sequence[str]) -> None:
        self._address = address
        self._form = form
        self._words = tuple(words)
        self._door: socket.socket | None = None
        self._clients: dict[int, _Client] = {}
        self._speaker: _Client | None = None
        self._lock = threading.Lock()
        self._sound: deque[bytes] = deque()
        self.overruns = 0
        """Counts beginnings of sound: what comes does not follow on what came."""

    @property
    def where(self) -> str:
        """The address."""
        return self._address

    @property
    def port(self) -> int:
        """Where it listens; the one asked for, unless that was 0."""
        return 0 if self._door is None else int(self._door.getsockname()[1])

    def open(self) -> SoundFormat:
        """Listen for clients.

        Raises:
            SourceError: ``source.no-listener``.
        """
        self.close()
        address = host_and_port(self._address)
        try:
            self._door = socket.create_server(address, backlog=MAX_CLIENTS)
        except OSError as error:
            raise _no_listener(self._address, error) from error
        return self._form

    def read(self) -> bytes | None:
        """Sound of the client that speaks; empty while nobody does."""
        if not self._sound:
            self._turn()
        return self._sound.popleft() if self._sound else b""

    def close(self) -> None:
        """Hang up and stop listening."""
        for client in list(self._clients.values()):
            self._drop(client)
        if self._door is not None:
            self._door.close()
            self._door = None

    def answer(self, label: str) -> None:
        """A word was heard: tell the client that speaks. From any thread."""
        with self._lock:
            client = self._speaker
            if client is None or (client.names and label not in client.names):
                return
            client.heard = True
            self._send(client, Message("detection", {"name": label, "timestamp": None}))

    def _turn(self) -> None:
        """Wait a little for whatever comes first."""
        door = self._door
        if door is None:
            return
        waits = [c.closes_s for c in self._clients.values() if c.closes_s is not None]
        timeout_s = min([STALL_S, *(max(0.0, due - time.monotonic()) for due in waits)])
        ready, _, _ = select.select([door.fileno(), *self._clients], (), (), timeout_s)
        for descriptor in ready:
            if descriptor == door.fileno():
                self._admit(door)
            elif (client := self._clients.get(descriptor)) is not None:
                self._hear(client)
        for client in list(self._clients.values()):
            if client.closes_s is not None and time.monotonic() >= client.closes_s:
                self._finish(client)

    def _admit(self, door: socket.socket) -> None:
        link, peer = door.accept()
        if len(self._clients) >= MAX_CLIENTS:
            log.warning("%s is turned away: %d clients are connected", peer, MAX_CLIENTS)
            link.close()
            return
        link.settimeout(SEND_S)
        self._clients[link.fileno()] = _Client(link)

    def _hear(self, client: _Client) -> None:
        try:
            data = client.link.recv(READ_BYTES)
            for message in client.reader.feed(data):
                self._obey(client, message)
        except (OSError, ProtocolError) as error:
            log.warning("a client is dropped: %s", error)
            data = b""
        if not data:
            self._drop(client)

    def _obey(self, client: _Client, message: Message) -> None:
        if message.kind == "describe":
            self._send(client, info_message(self._words))
        elif message.kind == "ping":
            self._send(client, Message("pong", message.data))
        elif message.kind == "detect":
            client.names = frozenset(map(str, message.data.get("names") or ()))
        elif message.kind == "audio-start":
            self._begin(client, message)
        elif message.kind == "audio-chunk":
            if self._speaker is client or self._begin(client, message):
                self._sound.append(message.payload)
        elif message.kind == "audio-stop" and self._speaker is client:
            client.closes_s = time.monotonic() + LAST_WORDS_S

    def _begin(self, client: _Client, message: Message) -> bool:
        """Whether this client may speak now, in this format."""
        form = self._form
        wanted = {"rate": form.rate_hz, "width": BYTES[form.encoding], "channels": form.channels}
        given = {name: message.data.get(name) for name in wanted}
        problem = f"send {wanted}, not {given}" if given != wanted else ""
        with self._lock:
            if self._speaker not in (None, client):
                problem = "another client is speaking"
            if not problem:
                self._speaker, client.heard, client.closes_s = client, False, None
                self.overruns += 1
        if problem:
            self._send(client, Message("error", {"text": problem, "code": "refused"}))
        return not problem

    def _finish(self, client: _Client) -> None:
        with self._lock:
            client.closes_s = None
            if self._speaker is client:
                self._speaker = None
            if not client.heard:
                self._send(client, Message("not-detected", {}))

    def _send(self, client: _Client, message: Message) -> None:
        try:
            client.link.sendall(encode_message(message))
        except OSError as error:
            log.warning("a client does not listen: %s", error)

    def _drop(self, client: _Client) -> None:
        with self._lock:
            if self._speaker is client:
                self._speaker = None
        self._clients = {fd: other for fd, other in self._clients.items() if other is not client}
        client.link.close()


def host_and_port(address: str) -> tuple[str, int]:
    """Of ``tcp://HOST:PORT``.

    Raises:
        SourceError: ``source.no-listener``.
    """
    try:
        parts = urlsplit(address)
        if parts.scheme != "tcp" or parts.port is None or not parts.hostname:
            raise ValueError("it is not tcp://HOST:PORT")
    except ValueError as error:
        raise _no_listener(address, error) from error
    return parts.hostname, parts.port


def _no_listener(address: str, error: Exception) -> SourceError:
    return SourceError(
        "no-listener",
        f"Cannot listen for sound on {address}: {error}.",
        "Set device in [pipeline.source] to an address of this machine and a free port, "
        "such as tcp://0.0.0.0:10400.",
    )
