"""sd_notify against real unix datagram sockets, path and abstract."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.notify import Notifier


@contextmanager
def manager(address: str | bytes) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(5.0)
        yield server


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


def test_every_message_arrives_as_the_protocol_says(path: str) -> None:
    with manager(path) as server:
        notifier = Notifier({"NOTIFY_SOCKET": path})
        assert notifier.ready("serving digits 1.0")
        assert notifier.status("two\nlines  are one")
        assert notifier.alive()
        assert notifier.stopping()
        notifier.close()
        assert notifier.alive()
        notifier.close()
        assert [server.recv(4096) for _ in range(5)] == [
            b"READY=1\nSTATUS=serving digits 1.0",
            b"STATUS=two lines are one",
            b"WATCHDOG=1",
            b"STOPPING=1",
            b"WATCHDOG=1",
        ]


def test_an_abstract_socket_is_reached() -> None:
    name = f"edge-agent-test-{os.getpid()}"
    with manager(b"\0" + name.encode()) as server:
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        assert notifier.ready()
        notifier.close()
        assert server.recv(4096) == b"READY=1"


@pytest.mark.parametrize("name", ["", "@", "relative", "vsock:2:1234"])
def test_without_a_usable_socket_nothing_is_sent(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert not notifier.ready("x")
    assert notifier.watchdog_interval_s is None


def test_a_manager_that_is_gone_or_back_is_survived(path: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": path})
    assert not notifier.ready()
    with manager(path) as server:
        assert notifier.ready()
        assert server.recv(100) == b"READY=1"
    assert not notifier.alive()
    notifier.close()


def test_a_full_socket_drops_instead_of_blocking(path: str) -> None:
    with manager(path):
        notifier = Notifier({"NOTIFY_SOCKET": path})
        sent = 0
        while sent < 100_000 and notifier.alive():
            sent += 1
        notifier.close()
    assert 0 < sent < 100_000


def test_a_path_longer_than_an_address_is_survived(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / ("x" * 200))})
    assert not notifier.ready()
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert Notifier(environment, pid=42).watchdog_interval_s == interval_s


@given(st.text(max_size=400))
def test_a_status_is_always_one_bounded_line(text: str) -> None:
    name = f"edge-agent-status-{os.getpid()}"
    with manager(b"\0" + name.encode()) as server:
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        assert notifier.ready(text)
        notifier.close()
        lines = server.recv(4096).decode().split("\n")
    assert lines[0] == "READY=1"
    assert [line for line in lines[1:] if not line.startswith("STATUS=")] == []
    assert len(lines) <= 2


def test_a_fresh_process_can_notify_with_the_standard_library_alone(path: str) -> None:
    program = (
        "import os, sys; from agent.notify import Notifier\n"
        "ok = Notifier(os.environ).ready()\n"
        "foreign = {m.partition('.')[0] for m in sys.modules} & {'psutil', 'numpy', 'paho'}\n"
        "sys.exit(0 if ok and not foreign else 1)"
    )
    with manager(path) as server:
        environment = {**os.environ, "NOTIFY_SOCKET": path}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
        assert server.recv(100) == b"READY=1"
