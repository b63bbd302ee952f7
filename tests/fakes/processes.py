"""Real processes for tests: started on an ephemeral port, always ended."""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 60.0


def edge_command(*args: str) -> list[str]:
    """The command line of ``edge ARGS`` in this interpreter."""
    return [sys.executable, "-c", "from edge_sdk.cli.main import main; main()", *args]


def free_port() -> int:
    """A TCP port that was free a moment ago on the loopback interface.

    It lies below those that systems hand out: a broker that is restarted must find it free again,
    whatever connections other tests have opened meanwhile.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until ``port`` accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the process ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")


class Process:
    """A child process in a session of its own, with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, env: dict[str, str] | None = None):
        self.log = log
        self._handle = log.open("ab")
        self.child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=self._handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )

    def output(self) -> str:
        """Everything it printed so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = START_SECONDS) -> re.Match[str]:
        """Wait until the output matches; raise with the output when it does not."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = re.search(pattern, self.output())
            if found:
                return found
            if time.monotonic() > deadline or self.child.poll() is not None:
                raise RuntimeError(f"{pattern!r} not seen; output:\n{self.output()}")
            select.select([], [], [], 0.02)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Send a signal and wait; SIGKILL follows when it is ignored."""
        if self.child.poll() is None:
            self.child.send_signal(number)
            try:
                self.child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(timeout_s)
        self._handle.close()
        return self.child.returncode
