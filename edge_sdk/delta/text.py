"""Finding what lies between tensors: graph text, names, small constants. The host's half.

As in bsdiff (C. Percival, "Naive differences of executable code", 2003) equal stretches are grown
over bytes that differ as long as most of them agree: a scale that changed, or an offset, then costs
its own bytes and no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.program import Copy, Fresh, Text
from edge_sdk.recipes.gaps import GapIndex, Match, Span

QUIET_BYTES = 192
"""An equal stretch of this length within differing ones is copied."""
MAX_GROWTH_BYTES = 1 << 16

Bytes = npt.NDArray[np.uint8]
Found = tuple[int, Copy | Fresh | Text]
"""Where in the target, and what."""


class TextFinder:
    """Says how stretches of a target come from a base.

    Args:
        base: the old file.
        index: of its stretches outside of tensors.
        target: the new file.
    """

    def __init__(self, base: bytes, index: GapIndex, target: bytes) -> None:
        self._index, self._target = index, target
        self._old = np.frombuffer(base, np.uint8)
        self._new = np.frombuffer(target, np.uint8)

    def find(self, span: Span, before: int, after: int) -> Iterator[Found]:
        """Instructions that make a stretch, in order.

        Args:
            span: the stretch.
            before: where the base goes on behind what the tensor before it was made from.
            after: where in the base the tensor behind it begins; -1, both, when not known.
        """
        at, end = span
        for start, place, length in self._grown(span, before, after):
            if not length:
                continue
            if start > at:
                yield at, Fresh(start - at)
            yield from self._split(start, place, length)
            at = start + length
        if end > at:
            yield at, Fresh(end - at)

    def _grown(self, span: Span, before: int, after: int) -> Iterator[Match]:
        """Matches that reach over differences, apart from each other and in order."""
        begin, end = span
        if before >= 0 and after - before == end - begin and self._alike(before, span):
            yield begin, before, end - begin
            return
        matches = list(self._index.matches(self._target, span))
        if before >= 0:
            matches.insert(0, (begin, before, 0))
        if after >= 0:
            matches.append((end, after, 0))
        merged: list[list[int]] = []
        for start, place, length in matches:
            if merged and self._bridged(merged[-1], start, place):
                merged[-1][2] = start + length - merged[-1][0]
            else:
                merged.append([start, place, length])
        for number, match in enumerate(merged):
            floor = merged[number - 1][0] + merged[number - 1][2] if number else begin
            ceiling = merged[number + 1][0] if number + 1 < len(merged) else end
            self._forward(match, ceiling)
            self._backward(match, floor)
            yield match[0], match[1], match[2]

    def _alike(self, place: int, span: Span) -> bool:
        """Whether most of a stretch is what lies at ``place``."""
        size = span[1] - span[0]
        equal = self._old[place : place + size] == self._new[span[0] : span[1]]
        return 2 * int(equal.sum()) >= size

    def _bridged(self, last: list[int], start: int, place: int) -> bool:
        """Whether a match goes on where the last one ended, over mostly equal bytes or a few."""
        gap = start - last[0] - last[2]
        if gap != place - last[1] - last[2]:
            return False
        old, new = self._old[last[1] + last[2] : place], self._new[start - gap : start]
        return gap <= 16 or 2 * int((old == new).sum()) >= gap

    def _forward(self, match: list[int], ceiling: int) -> None:
        start, place = match[0] + match[2], match[1] + match[2]
        room = min(ceiling - start, len(self._old) - place, MAX_GROWTH_BYTES)
        if room > 0:
            equal = self._old[place : place + room] == self._new[start : start + room]
            match[2] += _worth(equal)

    def _backward(self, match: list[int], floor: int) -> None:
        room = min(match[0] - floor, match[1], MAX_GROWTH_BYTES)
        if room > 0:
            old = self._old[match[1] - room : match[1]]
            more = _worth((old == self._new[match[0] - room : match[0]])[::-1])
            match[:] = [match[0] - more, match[1] - more, match[2] + more]

    def _split(self, start: int, place: int, length: int) -> Iterator[Found]:
        """Copies where nothing differs for long, differences in between."""
        differs = np.flatnonzero(
            self._old[place : place + length] != self._new[start : start + length]
        )
        edges = np.concatenate([[-1], differs, [length]])
        quiet = np.flatnonzero(np.diff(edges) > QUIET_BYTES)
        at = 0
        for number in quiet:
            first, last = int(edges[number]) + 1, int(edges[number + 1])
            if first > at:
                yield start + at, Text(place + at, first - at, 0)
            yield start + first, Copy(place + first, last - first)
            at = last
        if length > at:
            yield start + at, self._plain(start + at, place + at, length - at)

    def _plain(self, start: int, place: int, length: int) -> Copy | Text:
        old, new = self._old[place : place + length], self._new[start : start + length]
        return Copy(place, length) if np.array_equal(old, new) else Text(place, length, 0)


def _worth(equal: npt.NDArray[np.bool_]) -> int:
    """How far to go: to where equal bytes outnumber the others most."""
    score = np.cumsum(2 * equal.astype(np.int64) - 1)
    best = int(score.argmax())
    return best + 1 if score[best] > 0 else 0
