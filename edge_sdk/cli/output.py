"""Everything the ``edge`` command prints: for people, or one JSON document with ``--json``."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Concatenate, ParamSpec, Protocol

import click

from edge_sdk.errors import EdgeError

P = ParamSpec("P")

PIPE_COLUMNS = 120
"""Width of a table that is not written to a terminal, unless COLUMNS says otherwise."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class Progress(Protocol):
    """A running progress display."""

    def step(self, text: str | None = None, advance: int = 1) -> None:
        """Advance, and optionally say what is going on now."""


class Output:
    """Prints results; built by :func:`with_output` for each command.

    In JSON mode standard output carries exactly one document, ``{"ok", "result", "next"}`` or
    ``{"ok", "error"}``; progress always goes to standard error.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._next: list[str] = []
        self._result: Any = None

    def line(self, text: str = "", style: str = "") -> None:
        """A line for a person; silent in JSON mode."""
        if not self.as_json:
            self._console().print(text, style=style or None)

    def status(self, text: str) -> None:
        """What a running service says at once; on standard error in JSON mode."""
        print(text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for a person; columns of numbers are right-aligned. Silent in JSON mode."""
        if self.as_json:
            return
        from rich import box
        from rich.table import Table

        table = Table(
            title=title or None,
            title_justify="left",
            header_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for index, column in enumerate(columns):
            numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self._console().print(table)

    def result(self, data: Any) -> None:
        """What the command found, as plain data; printed in JSON mode only."""
        self._result = data

    def next_step(self, *commands: str) -> None:
        """The next useful commands, shown last."""
        self._next.extend(commands)

    @contextmanager
    def progress(self, title: str, total: int | None) -> Iterator[Progress]:
        """A progress bar on standard error (quiet when it is not a terminal)."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            yield _RichProgress(bar, bar.add_task(title, total=total), title)

    def finish(self) -> None:
        """Print the JSON document, or the next steps."""
        if self.as_json:
            document = {"ok": True, "result": self._result, "next": self._next}
            print(json.dumps(document, indent=2, default=str))
        elif self._next:
            self.line()
            self.line("Next:", style="bold")
            for command in self._next:
                self.line(f"  {command}", style="cyan")

    def error(self, error: EdgeError) -> None:
        """Print an error with its cause and hint."""
        if self.as_json:
            print(json.dumps({"ok": False, "error": error.as_dict()}, indent=2))
            return
        print(f"error[{error.code}]: {error.cause}\nHint: {error.hint}", file=sys.stderr)

    def _console(self) -> Any:
        from rich.console import Console

        # Text is printed as it is: names may hold [brackets] and :colons:.
        terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
        return Console(
            file=sys.stdout,
            width=None if terminal else PIPE_COLUMNS,
            soft_wrap=True,
            markup=False,
            emoji=False,
            highlight=False,
        )


class _RichProgress:
    def __init__(self, bar: Any, task: Any, title: str) -> None:
        self._bar = bar
        self._task = task
        self._title = title

    def step(self, text: str | None = None, advance: int = 1) -> None:
        description = f"{self._title}: {text}" if text else self._title
        self._bar.update(self._task, advance=advance, description=description)


def _is_number(cell: object) -> bool:
    try:
        float(str(cell).rstrip("%x").split()[0])
    except (ValueError, IndexError):
        return False
    return True


@contextmanager
def _only_ours() -> Iterator[None]:
    """Send what other code prints to standard error: a program reads the other one.

    A user's model file may print, and so may a native library, which knows only descriptors.
    """
    ours, theirs = sys.stdout, sys.stderr
    if ours is None or theirs is None:  # started with a closed descriptor
        yield
        return
    ours.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = theirs
    try:
        yield
    finally:
        theirs.flush()
        sys.stdout = ours
        os.dup2(kept, 1)
        os.close(kept)


def with_output(function: Callable[Concatenate[Output, P], None]) -> Callable[P, None]:
    """Give a command ``--json`` and its :class:`Output`, and turn errors into exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        output = Output(bool(kwargs.pop("as_json", False)))
        try:
            with _only_ours() if output.as_json else nullcontext():
                function(output, *args, **kwargs)
        except EdgeError as error:
            output.error(error)
            raise SystemExit(error.exit_code) from None
        except (KeyboardInterrupt, click.Abort):
            # 128 + SIGINT, as shells report it; click's own answer would be 1.
            output.status("interrupted")
            raise SystemExit(INTERRUPTED) from None
        output.finish()

    return run
