"""Writes the JSON Schema of every contract: ``python -m edge_sdk.contracts.export docs/reference``.

Descriptions are the docstrings in the source, those under a field included. A test holds the
committed files to what this writes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk import contracts
from edge_sdk.contracts.base import Config, Wire
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.topics import SEGMENT_CHUNKS, Topics

ALSO: frozenset[type[msgspec.Struct]] = frozenset({OperatingPoint, TelemetrySample})
"""Parts of other contracts that are read by themselves, too."""

_ROLE = re.compile(r":\w+:`~?([\w.]+)`")


def documents() -> list[type[msgspec.Struct]]:
    """Every contract that is no mere part of another one, and :data:`ALSO`; by name."""
    for module in pkgutil.iter_modules(contracts.__path__):
        importlib.import_module(f"{contracts.__name__}.{module.name}")
    known = {kind for base in (Wire, Config) for kind in _leaves(base) if _is_ours(kind)}
    parts = {part for kind in known for part in _structs(kind) - {kind}}
    return sorted((known - parts) | ALSO, key=lambda kind: kind.__name__)


def render() -> dict[str, str]:
    """Every reference file by name."""
    files = {
        f"{kind.__name__}.schema.json": json.dumps(schema_of(kind), indent=2) + "\n"
        for kind in documents()
    }
    return {**files, "topics.md": topics_page()}


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a contract, with the source's descriptions."""
    definitions: dict[str, Any]
    (reference,), definitions = msgspec.json.schema_components(
        [kind], ref_template="#/$defs/{name}"
    )
    described = {struct.__name__: field_notes(struct) for struct in _structs(kind)}
    for name, definition in definitions.items():
        for field, note in described.get(name, {}).items():
            definition["properties"][field].setdefault("description", note)
        if "description" in definition:
            definition["description"] = plain(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.__name__,
        **reference,
        "$defs": dict(sorted(definitions.items())),
    }


def field_notes(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The docstring under each field of a struct and of what it extends, from their source."""
    ours = [kind for kind in reversed(struct.__mro__) if _is_ours(kind)]
    return {name: note for kind in ours for name, note in _own_notes(kind).items()}


def _own_notes(struct: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    notes = {}
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            notes[statement.target.id] = plain(following.value.value)
    return notes


def plain(docstring: str) -> str:
    """A docstring on one line, without reStructuredText roles."""
    named = _ROLE.sub(lambda role: role[1].rpartition(".")[2], docstring)
    return " ".join(named.replace("``", "`").split())


def topics_page() -> str:
    """The topic layout as Markdown, built by calling :class:`Topics` itself."""
    topics, device, digest = Topics("TENANT"), "DEVICE", "DIGEST"
    index = SEGMENT_CHUNKS
    chunk = topics.chunk(digest, index).removesuffix(f"/1/{index}") + "/SEGMENT/INDEX"
    built = {
        "desired": topics.desired(device),
        "state": topics.state(device),
        "ota": topics.ota(device),
        "telemetry": topics.telemetry(device),
        "results": topics.results(device, "PIPELINE"),
        "request": topics.request(device),
        "chunk": chunk,
        "ask_time": topics.ask_time(device),
        "time": topics.time(device),
        "tuf_head": topics.tuf_head(),
        "tuf_timestamp": topics.tuf_timestamp(),
        "tuf": topics.tuf("ROLE", 0).removesuffix("0") + "VERSION",
    }
    lines = [
        "# Topics",
        "",
        plain(inspect.getdoc(sys.modules[Topics.__module__]) or ""),
        "",
        "| topic | payload |",
        "| --- | --- |",
    ]
    for name, topic in built.items():
        lines.append(f"| `{topic}` | {plain(getattr(Topics, name).__doc__ or '')} |")
    lines += [
        "",
        f"`SEGMENT` is `INDEX` divided by {SEGMENT_CHUNKS}, rounded down.",
        "Names are 1 to 64 letters, digits, dots, dashes and underscores, and start with a letter",
        "or a digit.",
        "",
    ]
    return "\n".join(lines)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith(f"{contracts.__name__}.")


def _leaves(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """What extends a base, but for what is only there to be extended itself."""
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from _leaves(kind)
        else:
            yield kind


def _structs(kind: Any) -> set[type[msgspec.Struct]]:
    """A struct and every struct its fields hold."""
    found: set[type[msgspec.Struct]] = set()
    waiting = [msgspec.inspect.type_info(kind)]
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found.add(info.cls)
            waiting += [field.type for field in info.fields]
        for name in ("type", "types", "item_type", "item_types", "key_type", "value_type"):
            inner = getattr(info, name, ())
            waiting += inner if isinstance(inner, tuple) else [inner]
    return found


def main() -> None:
    """Write the files into the folder named on the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m edge_sdk.contracts.export docs/reference")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
