"""Runs the commands a person would type, and shows them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from edge_sdk.cli.output import Output
from edge_sdk.demo.processes import die_with_parent
from edge_sdk.errors import EdgeError, error_from

COMMAND_LIMIT_S = 900.0
PASSPHRASE = "demo"
"""Of the demo's offline keys; who types the commands is asked for one."""


@dataclass(frozen=True, slots=True)
class Running:
    """A command that has been started."""

    arguments: tuple[str, ...]
    process: subprocess.Popen[str]


class Shell:
    """Runs ``edge`` commands in processes of their own; once left, kills them and starts no more.

    Args:
        output: where commands are shown.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closed = True
            running = tuple(self._processes)
        for process in running:
            process.kill()
            process.wait()

    def run(self, *arguments: str) -> Any:
        """Show and run ``edge arguments``; returns the result of its JSON document.

        Raises:
            EdgeError: the command's own, or ``internal.step-failed``.
        """
        return self.finish(self.begin(*arguments))

    def show(self, *arguments: str) -> None:
        """Run ``edge arguments`` with its own tables and progress on this terminal.

        Raises:
            EdgeError: the command's own, or ``internal.step-failed``.
        """
        if self._output.as_json:
            self.run(*arguments)
            return
        self._say(arguments)
        process = self._launch(arguments, None)
        try:
            code = process.wait(COMMAND_LIMIT_S)
        finally:
            self._end(process)
        if code:
            raise _failed(arguments, f"ended with exit code {code}; its own message is above")

    def begin(self, *arguments: str) -> Running:
        """Show a command and start it in the background; end it with :meth:`finish`."""
        self._say(arguments)
        return Running(arguments, self._launch((*arguments, "--json"), subprocess.PIPE))

    def finish(self, running: Running) -> Any:
        """Wait for a command that :meth:`begin` started; returns its result."""
        process = running.process
        try:
            out, err = process.communicate(timeout=COMMAND_LIMIT_S)
        finally:
            self._end(process)
        return _result(running.arguments, process.returncode, out, err)

    def _say(self, arguments: Sequence[str]) -> None:
        self._output.line(f"  $ edge {shlex.join(arguments)}", style="dim")

    def _launch(self, arguments: Sequence[str], pipe: int | None) -> subprocess.Popen[str]:
        with self._lock:
            if self._closed:
                raise _failed(arguments, "was not started, as the demo is ending")
            process = subprocess.Popen(
                [sys.executable, "-m", "edge_sdk.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env={**os.environ, "EDGE_KEY_PASSPHRASE": PASSPHRASE},
                preexec_fn=die_with_parent(),
            )
            self._processes.add(process)
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()
        self._processes.discard(process)


def _result(arguments: Sequence[str], code: int, out: str, err: str) -> Any:
    try:
        document = json.loads(out)
    except json.JSONDecodeError:
        tail = " | ".join(err.strip().splitlines()[-3:])
        raise _failed(arguments, f"ended with exit code {code}: {tail}") from None
    if "error" in document:
        raise error_from(document["error"])
    return document["result"]


def _failed(arguments: Sequence[str], how: str) -> EdgeError:
    return EdgeError(
        "step-failed",
        f"`edge {shlex.join(arguments)}` {how}.",
        "Run the command by itself to see more.",
    )
