"""Child processes that never outlive the demo."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_sdk.errors import StorageError

_PR_SET_PDEATHSIG = 1
STOP_S = 8.0


class Processes:
    """Starts long-running commands with a log file each, and ends them all on exit.

    Each child gets a session of its own, so that Ctrl-C reaches the demo alone and the demo ends
    them in order; the kernel sends SIGTERM to them should the demo itself be killed.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Path:
        """Start ``python -m module arguments``; returns its log file."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("ab") as handle:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        return log

    def check(self) -> None:
        """Raise when one of them has ended by itself.

        Raises:
            StorageError: ``storage.demo-process``, with the end of its log.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self._logs / f"{name}.log"
                tail = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise StorageError(
                    "demo-process",
                    f"{name} ended with exit code {process.returncode}: {' | '.join(tail)}",
                    f"Read {log}; a port in use or a full disk are the usual causes.",
                )

    def pid(self, name: str) -> int:
        """Process id of a running command."""
        return self._running[name].pid

    def stop(self, name: str) -> None:
        """End one command: SIGTERM, then SIGKILL to everything it started."""
        process = self._running.pop(name)
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)

    def stop_all(self) -> None:
        """End all of them, the last started first."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for name in reversed(list(self._running)):
            self.stop(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave processes behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.stop_all()
        finally:
            signal.signal(signal.SIGINT, before)


def die_with_parent() -> Callable[[], None]:
    """For ``preexec_fn``: the kernel sends SIGTERM to the child when the demo is killed.

    The library is looked up before the fork; between fork and exec a process with threads may do
    little more than a system call.
    """
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_for(
    condition: Callable[[], bool], timeout_s: float, what: str, processes: Processes
) -> None:
    """Poll a callable until it is true.

    Raises:
        StorageError: a process ended, or ``storage.demo-timeout``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        processes.check()
        if time.monotonic() > deadline:
            raise StorageError(
                "demo-timeout",
                f"Waited {timeout_s:.0f} s for {what}.",
                "The machine may be overloaded; the logs beside the report tell more.",
            )
        time.sleep(0.1)
