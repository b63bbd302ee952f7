"""Real MQTT brokers for tests, each a process on an ephemeral loopback port."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from edge_sdk.brokers.authority import Authority
from edge_sdk.brokers.mosquitto import CONFIG_NAME, write_mosquitto
from edge_sdk.cli.credentials import broker_lines, write_credentials
from edge_sdk.contracts.topics import Topics
from tests.fakes.processes import Process, edge_command, free_port, wait_for_port

BROKERS = ("amqtt", "mosquitto")


class RunningBroker:
    """A broker that can be killed and started again on the same port."""

    def __init__(self, kind: str, folder: Path, extra: str = "") -> None:
        self.extra = extra
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self._process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        process = Process(self._command(), self.folder / f"{self.kind}.log")
        self._process = process
        wait_for_port(self.port, process.child)

    def kill(self) -> None:
        """SIGKILL: no goodbye, and retained messages in memory are lost."""
        self.stop(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        process, self._process = self._process, None
        return process.stop(number) if process else 0

    def agent_lines(self, device_id: str, home: Path) -> list[str]:
        """What an agent needs in ``[broker]`` besides host and port; files go to ``home``."""
        del device_id, home
        return []

    @property
    def access(self) -> str:
        """Who may connect: everybody, unless the extra configuration says otherwise."""
        return "" if "allow_anonymous" in self.extra else "allow_anonymous true"

    def _command(self) -> list[str]:
        if self.kind == "amqtt":
            return edge_command("broker", "run", "--port", str(self.port))
        program = mosquitto_program()
        if program is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\n{self.access}\npersistence false\n"
            "set_tcp_nodelay true\nmax_queued_messages 4000\nuser root\n" + self.extra
        )
        return [program, "-c", str(config)]


class TlsMosquitto(RunningBroker):
    """mosquitto exactly as ``edge broker mosquitto`` configures it, for one authority.

    Args:
        authority: whose certificates count.
        topics: the tenant's topic layout.
        folder: configuration and retained messages.
    """

    def __init__(self, authority: Authority, topics: Topics, folder: Path) -> None:
        if mosquitto_program() is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        self.authority, self.topics = authority, topics
        super().__init__("mosquitto", folder)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"mqtts://localhost:{self.port}"

    def agent_lines(self, device_id: str, home: Path) -> list[str]:
        """Give the device its certificate."""
        write_credentials(self.authority, device_id, home)
        return broker_lines(self.authority, None)

    def _command(self) -> list[str]:
        config = self.folder / CONFIG_NAME
        if not config.exists():
            hosts = ("localhost", "127.0.0.1")
            options = {"port": self.port, "bind": "127.0.0.1", "user": "root"}
            write_mosquitto(self.authority, self.topics, self.folder, hosts, **options)
        return [mosquitto_program() or "", "-c", str(config)]


def mosquitto_program() -> str | None:
    """The mosquitto binary; Debian puts it where users have no PATH entry."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def running_broker(kind: str, folder: Path, extra: str = "") -> Iterator[RunningBroker]:
    """A broker of ``kind`` (``amqtt`` or ``mosquitto``) for the length of a test."""
    folder.mkdir(parents=True, exist_ok=True)
    broker = RunningBroker(kind, folder, extra)
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    """Each kind of broker in turn; import this name into a test module or conftest to use it."""
    with running_broker(request.param, tmp_path / "broker") as running:
        yield running


class SilentBroker:
    """Accepts connections and subscriptions, and never acknowledges a message."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        answers = {1: b"\x20\x02\x00\x00", 12: b"\xd0\x00"}  # CONNECT, PINGREQ
        with peer, peer.makefile("rb") as stream:
            while head := stream.read(1):
                body = stream.read(_length(stream))
                kind = head[0] >> 4
                if kind == 8:  # SUBSCRIBE
                    peer.sendall(b"\x90\x03" + body[:2] + b"\x01")
                elif kind in answers:
                    peer.sendall(answers[kind])


def _length(stream: BinaryIO) -> int:
    """MQTT's remaining length: seven bits a byte, the lowest first."""
    value = shift = 0
    while True:
        byte = (stream.read(1) or b"\0")[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value
