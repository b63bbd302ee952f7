"""Finding what two files share between their tensors: graph text, names, small constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

SEED_BYTES = 16
"""Equal stretches are noticed by this many bytes..."""
MIN_MATCH_BYTES = 24
"""...and used when they are at least this long: an instruction costs about 8 bytes."""
MAX_SEEDS = 1 << 18
"""Places of the base that are remembered; of a larger base, every second, third..."""
MAX_GAP_BYTES = 4 * 1024 * 1024
"""A longer stretch without a known tensor is left literal, rather than searched for minutes."""

Span = tuple[int, int]
"""Start and end."""
Match = tuple[int, int, int]
"""Where in the target, where in the base, how many bytes."""


class GapIndex:
    """The bytes of a base outside of its tensors, by their seeds.

    Args:
        base: the file.
        spans: the stretches to remember.
    """

    def __init__(self, base: bytes, spans: Iterable[Span]) -> None:
        self._base = base
        known = list(spans)
        step = sum(end - start for start, end in known) // MAX_SEEDS + 1
        self._places: dict[bytes, int] = {}
        for start, end in known:
            for at in range(start, end - SEED_BYTES + 1, step):
                self._places.setdefault(base[at : at + SEED_BYTES], at)

    def matches(self, target: bytes, span: Span) -> Iterator[Match]:
        """Stretches of the base in ``span`` of the target, in order; greedy from the left."""
        at, end = span
        floor, expected = at, -1
        if end - at > MAX_GAP_BYTES:
            return
        while at + SEED_BYTES <= end:
            place = self._place(target, at, expected)
            if place < 0:
                at += 1
                expected += expected >= 0
                continue
            back = _common_before(self._base, place, target, at, floor)
            length = back + _common(self._base, place, target, at, end)
            if length < MIN_MATCH_BYTES:
                at += 1
                continue
            yield at - back, place - back, length
            at = floor = at - back + length
            expected = place - back + length

    def _place(self, target: bytes, at: int, expected: int) -> int:
        """Where the seed at ``at`` lies in the base; best at the place behind the last match."""
        seed = target[at : at + SEED_BYTES]
        if expected >= 0 and self._base[expected : expected + SEED_BYTES] == seed:
            return expected
        return self._places.get(seed, -1)


def _common(base: bytes, place: int, target: bytes, at: int, end: int) -> int:
    """Length of the equal stretch beginning at two places."""
    limit, length, step = min(len(base) - place, end - at), 0, 64
    while length < limit:
        size = min(step, limit - length)
        start, other = place + length, at + length
        if base[start : start + size] != target[other : other + size]:
            if size == 1:
                break
            step = size // 2
            continue
        length += size
        step = min(step * 2, 1 << 16)
    return length


def _common_before(base: bytes, place: int, target: bytes, at: int, floor: int) -> int:
    """Length of the equal stretch ending just before two places."""
    limit, length = min(place, at - floor), 0
    while length < limit and base[place - length - 1] == target[at - length - 1]:
        length += 1
    return length
