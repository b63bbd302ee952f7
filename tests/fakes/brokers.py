"""Real MQTT brokers for tests, each a process on an ephemeral loopback port."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.processes import Process, edge_command, free_port, wait_for_port

BROKERS = ("amqtt", "mosquitto")


class RunningBroker:
    """A broker that can be killed and started again on the same port."""

    def __init__(self, kind: str, folder: Path) -> None:
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

    def _command(self) -> list[str]:
        if self.kind == "amqtt":
            return edge_command("broker", "run", "--port", str(self.port))
        program = mosquitto_program()
        if program is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "set_tcp_nodelay true\nmax_queued_messages 4000\nuser root\n"
        )
        return [program, "-c", str(config)]


def mosquitto_program() -> str | None:
    """The mosquitto binary; Debian puts it where users have no PATH entry."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def running_broker(kind: str, folder: Path) -> Iterator[RunningBroker]:
    """A broker of ``kind`` (``amqtt`` or ``mosquitto``) for the length of a test."""
    folder.mkdir(parents=True, exist_ok=True)
    broker = RunningBroker(kind, folder)
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    """Each kind of broker in turn; import this name into a test module or conftest to use it."""
    with running_broker(request.param, tmp_path / "broker") as running:
        yield running
