"""Payloads in pieces, for brokers that take small messages only."""

from __future__ import annotations

from collections.abc import Iterator

MAX_PARTS = 4096
MAX_HELD_BYTES = 16 * 1024 * 1024
"""Unfinished payloads beyond this are dropped, all of them: whoever wants one asks again."""


def split(payload: bytes, limit: int | None) -> Iterator[tuple[int, int, bytes]]:
    """``(part, parts, piece)`` of a payload; at least one, even of an empty one.

    Args:
        limit: bytes of a piece; None for the whole in one.
    """
    size = limit or max(len(payload), 1)
    parts = max(-(-len(payload) // size), 1)
    for part in range(parts):
        yield part, parts, payload[part * size : (part + 1) * size]


class Assembly:
    """Puts pieces together by name; bounded."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], dict[int, bytes]] = {}
        self._bytes = 0

    def take(self, name: str, part: int, parts: int, piece: bytes) -> bytes | None:
        """Add a piece; the whole payload when it is complete."""
        if not 0 <= part < parts <= MAX_PARTS:
            return None
        if parts == 1:
            return piece
        if self._bytes + len(piece) > MAX_HELD_BYTES:
            self.clear()
        held = self._held.setdefault((name, parts), {})
        self._bytes += len(piece) - len(held.get(part, b""))
        held[part] = piece
        if len(held) < parts:
            return None
        self.drop(name)
        return b"".join(held[number] for number in range(parts))

    def drop(self, name: str) -> None:
        """Forget what has come of one payload."""
        for key in [key for key in self._held if key[0] == name]:
            self._bytes -= sum(map(len, self._held.pop(key).values()))

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._bytes = 0
