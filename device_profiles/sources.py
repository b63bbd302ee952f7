"""Where a profile's figures come from, and which of them nobody here has read; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from edge_sdk.contracts.profile import DeviceProfile

NOT_VERIFIED = "not verified"
"""A source that says so was named from general knowledge: the document was not read for this
profile, or not line by line."""

_KEYS = ("source", "cpu_source")


@dataclass(frozen=True, slots=True)
class Source:
    """A source, and the part of the profile it stands for."""

    key: str
    """E.g. ``memory.source``, ``accelerators[0].constraints[1].source``."""
    text: str

    @property
    def verified(self) -> bool:
        """Whether it does not say otherwise."""
        return NOT_VERIFIED not in self.text.lower()


def sources(profile: DeviceProfile) -> list[Source]:
    """Every source of a profile, in the order of its keys."""
    return list(_sources(msgspec.to_builtins(profile), ""))


def unverified(profile: DeviceProfile) -> list[Source]:
    """Sources that say that they are not verified."""
    return [source for source in sources(profile) if not source.verified]


def _sources(value: Any, path: str) -> Iterator[Source]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _KEYS and isinstance(item, str):
                yield Source(f"{path}{key}", item)
            else:
                yield from _sources(item, f"{path}{key}.")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _sources(item, f"{path.rstrip('.')}[{index}].")
