"""What differs between two profiles, key by key; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_sdk.contracts.profile import DeviceProfile

_NAMED_BY = {
    "cost": ("runtime", "precision", "unit", "threads", "power_mode"),
    "reference": ("model", "runtime", "precision", "unit", "threads"),
    "runtimes": ("name",),
    "accelerators": ("name",),
    "constraints": ("runtime", "format"),
    "cpu": ("uarch", "mhz"),
}
"""Lists whose entries are matched by what they are about, not by their place."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose values differ; None stands for a key that is not there."""

    key: str
    first: Any
    second: Any


def diff(first: DeviceProfile, second: DeviceProfile) -> list[Difference]:
    """Differences by key, sorted; swapping the profiles swaps the two values of each."""
    one, two = dict(_flat(msgspec.to_builtins(first))), dict(_flat(msgspec.to_builtins(second)))
    return [
        Difference(key, one.get(key), two.get(key))
        for key in sorted(one.keys() | two.keys())
        if one.get(key) != two.get(key)
    ]


def _flat(value: Any, path: str = "", name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else key, key)
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        seen: dict[str, int] = {}
        for item in value:
            label = _label(item, name)
            seen[label] = seen.get(label, 0) + 1
            again = f"#{seen[label]}" if seen[label] > 1 else ""
            yield from _flat(item, f"{path}[{label}{again}]", name)
    else:
        yield path, list(value) if isinstance(value, tuple) else value


def _label(item: Any, name: str) -> str:
    fields = _NAMED_BY.get(name, ())
    return " ".join(str(item[field]) for field in fields if item.get(field) not in (None, ""))
