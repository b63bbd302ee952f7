"""Which channels of a tensor stayed when a network was made narrower. The host's half.

The channels that a layer gives are those that the next one takes, so a map that was found once is
tried for every tensor of the same sizes, and an axis that it explains makes the next one findable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.program import MAX_COUNT, MAX_DIMENSIONS, Axis, Map
from edge_sdk.recipes.parts import Part

MAX_MAPS_TRIED = 8
MAX_COMPARED = 1 << 24
"""Pairs of channels that are compared for one axis."""
ALIKE = 0.6
"""A tensor is taken for a part of another when its differences are smaller than this share."""
_TINY = 1e-30
"""Whole numbers look like floats below this."""

Floats = npt.NDArray[np.float32]


class AxisFinder:
    """Finds the maps of narrower tensors.

    Args:
        base: the old file.
        target: the new file.
        maps: which maps there are; grows.
    """

    def __init__(self, base: bytes, target: bytes, maps: list[Map]) -> None:
        self._base, self._target, self._maps = base, target, maps
        self._known: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def find(self, old: Part, new: Part) -> tuple[Axis, ...] | None:
        """What is taken of ``old`` to come near to ``new``; None when nothing is near."""
        fits = len(old.shape) == len(new.shape) <= MAX_DIMENSIONS and old.itemsize == new.itemsize
        narrower = [i for i, (a, b) in enumerate(zip(old.shape, new.shape, strict=False)) if a > b]
        wider = any(a < b for a, b in zip(old.shape, new.shape, strict=False))
        if not fits or wider or not narrower or new.itemsize not in (1, 4):
            return None
        before, after = _values(self._base, old), _values(self._target, new)
        best, least = None, ALIKE
        for ways in self._ways(before, after, narrower):
            taken = before
            for axis, indexes in ways.items():
                taken = taken.take(indexes, axis)
            error = _error(taken, after)
            if error < least:
                best, least = ways, error
        if best is None:
            return None
        return tuple(
            Axis(size, self._number(size, best[axis]) if axis in best else 0)
            for axis, size in enumerate(old.shape)
        )

    def _ways(self, before: Floats, after: Floats, narrower: list[int]) -> Iterator[dict[int, Map]]:
        """Maps for each narrower axis: all known, or all but one, which is searched."""
        known = {axis: self._options(before.shape[axis], after.shape[axis]) for axis in narrower}
        for chosen in product(*known.values()):
            yield dict(zip(narrower, chosen, strict=True))
        for free in narrower:
            others = [axis for axis in narrower if axis != free]
            for chosen in product(*(known[axis] for axis in others)):
                ways = dict(zip(others, chosen, strict=True))
                taken = before
                for axis, indexes in ways.items():
                    taken = taken.take(indexes, axis)
                found = _nearest(taken, after, free)
                if found is not None:
                    yield {**ways, free: found}

    def _options(self, old: int, new: int) -> list[Map]:
        found = [self._maps[number - 1] for number in self._known[old, new][-MAX_MAPS_TRIED:]]
        prefix = tuple(range(new))
        return [*found, prefix] if new <= MAX_COUNT else []

    def _number(self, size: int, indexes: Map) -> int:
        """The number of a map, which is added when it is new."""
        numbers = self._known[size, len(indexes)]
        for number in numbers:
            if self._maps[number - 1] == indexes:
                return number
        self._maps.append(indexes)
        numbers.append(len(self._maps))
        return len(self._maps)


def _values(data: bytes, part: Part) -> Floats:
    if part.itemsize == 1:
        flat: npt.NDArray[np.generic] = np.frombuffer(data, "<i1", prod(part.shape), part.offset)
    else:
        floats = np.frombuffer(data, "<f4", prod(part.shape), part.offset)
        whole = not np.isfinite(floats).all() or float(np.abs(floats).max(initial=0)) < _TINY
        flat = floats.view("<i4") if whole else floats
    return flat.astype(np.float32).reshape(part.shape)


def _nearest(before: Floats, after: Floats, axis: int) -> Map | None:
    """For each index of ``after`` the one of ``before`` whose slice points the same way."""
    sizes = before.shape[axis], after.shape[axis]
    inner = prod(after.shape) // max(sizes[1], 1)
    if sizes[0] * sizes[1] > MAX_COMPARED or sizes[1] > MAX_COUNT:
        return None
    old, new = (
        np.moveaxis(each, axis, 0).reshape(size, inner)
        for each, size in zip((before, after), sizes, strict=True)
    )
    if inner == 1:
        return tuple(int(i) for i in np.abs(old - new.T).argmin(0))
    lengths = np.sqrt((old * old).sum(1))[:, None]
    return tuple(int(i) for i in (old / np.where(lengths == 0, 1, lengths) @ new.T).argmax(0))


def _error(taken: Floats, after: Floats) -> float:
    total = float(np.abs(after).sum())
    return float(np.abs(taken - after).sum()) / total if total else float(np.abs(taken).any())
