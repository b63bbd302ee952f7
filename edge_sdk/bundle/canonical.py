"""Canonical JSON as TUF signs it: one byte string for one document, whoever encodes it.

Keys sorted by code point, no white space, only quote and backslash escaped, no fractions. This is
OLPC's canonical JSON, which python-tuf uses; documents of this product's own are DSSE envelopes and
need no canonical form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The canonical encoding.

    Raises:
        ValueError: a value that has no canonical form, such as a fraction or half a surrogate pair.
    """
    return "".join(_parts(value)).encode()


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield _text(value)
    elif value is None or isinstance(value, bool):
        yield {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, int):
        yield str(value)
    elif isinstance(value, list | tuple):
        yield "["
        for index, item in enumerate(value):
            yield "," if index else ""
            yield from _parts(item)
        yield "]"
    elif isinstance(value, dict):
        yield from _members(value)
    else:
        raise ValueError(f"{type(value).__name__} has no canonical form")


def _members(value: dict[str, Any]) -> Iterator[str]:
    yield "{"
    for index, (key, item) in enumerate(sorted(value.items())):
        yield f"{',' if index else ''}{_text(key)}:"
        yield from _parts(item)
    yield "}"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
