"""Everything the ``edge-agent`` command prints; no dependency, so that it starts fast."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from edge_sdk.errors import EdgeError


class Output:
    """Text for people, or exactly one JSON document."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def line(self, text: str = "") -> None:
        """A line for a person; silent in JSON mode."""
        if not self.as_json:
            print(text, flush=True)

    def pairs(self, rows: Mapping[str, object]) -> None:
        """Aligned ``name  value`` lines."""
        width = max((len(name) for name in rows), default=0)
        for name, value in rows.items():
            self.line(f"  {name.ljust(width)}  {value}")

    def finish(self, result: Any, next_steps: Sequence[str] = (), *, ok: bool = True) -> None:
        """The JSON document, or the next steps."""
        if self.as_json:
            document = {"ok": ok, "result": result, "next": list(next_steps)}
            print(json.dumps(document, indent=2, default=str), flush=True)
        elif next_steps:
            self.line("\nNext:")
            for step in next_steps:
                self.line(f"  {step}")

    def error(self, error: EdgeError) -> None:
        """An error with cause and hint."""
        if self.as_json:
            print(json.dumps({"ok": False, "error": error.as_dict()}, indent=2))
            return
        print(f"error[{error.code}]: {error.cause}\nHint: {error.hint}", file=sys.stderr)
