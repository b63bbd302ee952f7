"""Writes a profile as TOML; what it writes parses to the same profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from edge_sdk.contracts.base import Config
from edge_sdk.contracts.profile import CostRow, DeviceProfile


def profile_toml(profile: DeviceProfile) -> str:
    """The whole profile; defaults are left out."""
    table = _plain(profile)
    table["schema"] = profile.schema
    scalars = {key: value for key, value in table.items() if not _is_table(value)}
    tables = {key: value for key, value in table.items() if _is_table(value)}
    order = ["schema", *(key for key in scalars if key != "schema")]
    text = "".join(f"{key} = {_value(scalars[key])}\n" for key in order)
    return text + "".join(_tables(key, value) for key, value in tables.items())


def cost_toml(rows: tuple[CostRow, ...]) -> str:
    """``[[cost]]`` tables alone."""
    return "".join(_tables("cost", [_plain(row)]) for row in rows).lstrip("\n")


def _plain(value: Config) -> dict[str, Any]:
    """Builtins without what equals its default."""
    found = {}
    for field in msgspec.structs.fields(value):
        item = getattr(value, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if item == default or item is None:
            continue
        found[field.encode_name] = _builtin(item)
    return found


def _builtin(item: Any) -> Any:
    if isinstance(item, Config):
        return _plain(item)
    if isinstance(item, tuple | list):
        return [_builtin(part) for part in item]
    return item


def _is_table(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) for item in value)
    return isinstance(value, dict)


def _tables(path: str, value: Any) -> str:
    """``[path]`` or ``[[path]]``, with its own tables after its scalars.

    A table inside an array of tables that holds scalars only is written inline.
    """
    if isinstance(value, list):
        return "".join(_table(f"[[{path}]]", path, item) for item in value)
    return _table(f"[{path}]", path, value)


def _table(heading: str, path: str, item: Mapping[str, Any]) -> str:
    lines = [f"\n{heading}\n"]
    nested = []
    for key, value in item.items():
        if isinstance(value, list) and _is_table(value):
            nested.append(_tables(f"{path}.{key}", value))
        else:
            lines.append(f"{key} = {_value(value)}\n")
    return "".join(lines + nested)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    inside = ", ".join(f"{_text(key)} = {_value(item)}" for key, item in value.items())
    return f"{{ {inside} }}" if inside else "{}"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    parts = [c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped if ord(c) < 0x10000]
    if len(parts) != len(escaped):
        parts = [c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped]
    return f'"{"".join(parts)}"'
