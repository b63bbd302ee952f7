"""Runs the commands a person would type, and shows them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from edge_sdk.cli.output import Output
from edge_sdk.errors import EdgeError

COMMAND_LIMIT_S = 900.0


class DemoStepError(EdgeError):
    """A command of the demo failed; its own cause and hint are kept."""

    family = "demo"
    exit_code = 1


class Shell:
    """Runs ``edge`` commands in processes of their own.

    Args:
        output: where commands and their tables are shown.
    """

    def __init__(self, output: Output) -> None:
        self._output = output

    def run(self, *arguments: str) -> Any:
        """Show and run ``edge arguments``; returns the result of its JSON document.

        Raises:
            DemoStepError: ``demo.step-failed``.
        """
        self._output.line(f"  $ edge {shlex.join(arguments)}", style="dim")
        return self.quiet(*arguments)

    def quiet(self, *arguments: str) -> Any:
        """As :meth:`run`, without showing the command."""
        done = subprocess.run(
            [sys.executable, "-m", "edge_sdk.cli.main", *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=COMMAND_LIMIT_S,
            check=False,
            text=True,
        )
        return _result(arguments, done)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Show a command and start it in the background; end it with :meth:`finish`."""
        self._output.line(f"  $ edge {shlex.join(arguments)}", style="dim")
        return subprocess.Popen(
            [sys.executable, "-m", "edge_sdk.cli.main", *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Any:
        """Wait for a command that :meth:`begin` started; returns its result."""
        try:
            out, err = process.communicate(timeout=COMMAND_LIMIT_S)
        except BaseException:
            process.kill()
            process.wait()
            raise
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        return _result(tuple(process.args)[3:-1], done)


def _result(arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> Any:
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError:
        tail = " | ".join(done.stderr.strip().splitlines()[-3:])
        document = {"error": {"code": f"exit {done.returncode}", "cause": tail, "hint": ""}}
    error = document.get("error")
    if error is None and done.returncode == 0:
        return document["result"]
    error = error or {"code": f"exit {done.returncode}", "cause": "it failed", "hint": ""}
    raise DemoStepError(
        "step-failed",
        f"`edge {shlex.join(arguments)}` failed: {error['code']}: {error['cause']}",
        error["hint"] or "Run the command by itself to see more.",
    )
