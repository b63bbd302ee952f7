"""Finding a delta: the host's half.

Tensors of the target are looked up in the base, by name, by place, by shape, and coded as
differences to what the base lets expect; what lies between them is matched as text. The result is
tried before it is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod

from edge_sdk.delta.apply import apply_delta
from edge_sdk.delta.axes import AxisFinder
from edge_sdk.delta.encode import Item, encode_delta
from edge_sdk.delta.program import MAX_COUNT, Axis, Copy, Kind, Map, Tensor
from edge_sdk.delta.tensors import Choice, Chooser, Scales, kinds
from edge_sdk.delta.text import TextFinder
from edge_sdk.errors import ContractError
from edge_sdk.recipes.gaps import GapIndex, Span
from edge_sdk.recipes.parts import Part, find_parts

MAX_ALIKE = 4
"""Parts of the base of the same shape that are tried for one of the target."""
ROUNDS = 3
"""Of matching: a map that was found in one explains tensors in the next."""


class DeltaBase:
    """A file that others may be made from; read once, used for many.

    Args:
        data: its bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.parts = [part for part in find_parts(data) if kinds(part)]
        self.names = {part.name: part for part in self.parts}
        self.gaps = GapIndex(data, _gaps(self.parts, len(data)))

    def delta(self, target: bytes) -> bytes | None:
        """A delta that makes ``target`` from this base; None when none can be had.

        It may be larger than the target; the caller compares.
        """
        if not target or not self.data:
            return None
        try:
            data = _Finder(self, target).delta()
            made = bytearray(len(target))
            for piece in apply_delta(data, memoryview(self.data), len(target)):
                if piece is not None:
                    made[piece[0] : piece[0] + len(piece[1])] = piece[1]
        except ContractError:
            return None  # larger than a delta may be
        return data if made == target else None


class _Finder:
    def __init__(self, base: DeltaBase, target: bytes) -> None:
        self._base, self._target = base, target
        self._maps: list[Map] = []
        self._chooser = Chooser(base.data, target, self._maps)
        self._axes = AxisFinder(base.data, target, self._maps)
        self._parts = [part for part in find_parts(target) if kinds(part)]
        self._found: dict[Part, tuple[Part, tuple[Axis, ...]]] = {}

    def delta(self) -> bytes:
        for _ in range(ROUNDS):
            for index, part in enumerate(self._parts):
                self._match(part, index)
        scales = list(self._scales())
        chosen = {part: self._choose(part, scales) for part in self._parts}
        needed = _needed(chosen)
        items = [
            self._early(part, choice) if part in needed else self._item(part, choice)
            for part, choice in chosen.items()
        ]
        text = TextFinder(self._base.data, self._base.gaps, self._target)
        for span in _gaps(self._parts, len(self._target)):
            found = text.find(span, *self._neighbours(span))
            items += [Item(at, instruction) for at, instruction in found]
        items.sort(key=lambda item: item.at)
        return encode_delta(self._base.data, self._target, items, self._maps)

    def _item(self, part: Part, choice: Choice | None) -> Item:
        if choice is None:
            return Item(part.offset, Copy(self._found[part][0].offset, part.length))
        return Item(part.offset, choice.tensor, part, choice.needs, choice.told)

    def _early(self, part: Part, choice: Choice | None) -> Item:
        """Scales that others are divided by: floats, which need at most scales before them."""
        if choice is not None and choice.tensor.kind is Kind.FLOAT32:
            return Item(
                part.offset, replace(choice.tensor, early=True), part, choice.needs, choice.told
            )
        old, axes = self._found[part]
        plain = Tensor(Kind.FLOAT32, prod(part.shape), 0, old.offset, axes=axes, early=True)
        return Item(part.offset, plain, part)

    def _match(self, part: Part, index: int) -> None:
        """Say which part of the base a part of the target is like."""
        if part in self._found:
            return
        for old in self._candidates(part, index):
            axes = () if old.shape == part.shape else self._axes.find(old, part)
            if axes is not None:
                self._found[part] = old, axes
                return

    def _candidates(self, part: Part, index: int) -> Iterator[Part]:
        base = self._base
        named = base.names.get(part.name)
        placed = base.parts[index] if index < len(base.parts) else None
        alike = [old for old in base.parts if old.shape == part.shape][:MAX_ALIKE]
        for old in (named, placed, *alike):
            if old is not None and old.itemsize == part.itemsize:
                yield old

    def _scales(self) -> Iterator[Scales]:
        for part, (old, axes) in self._found.items():
            count = prod(part.shape)
            if part.itemsize == 4 and count <= MAX_COUNT and count in part.shape:
                axis = next((each for each in axes if each.map), None)
                yield Scales(old, part, axis)

    def _choose(self, part: Part, scales: list[Scales]) -> Choice | None:
        """How to code a part; None where it is copied as it is."""
        if part not in self._found:
            return self._chooser.fresh(part)
        old, axes = self._found[part]
        if not axes and self._bytes(part) == self._old_bytes(old):
            return None
        ways = [self._chooser.based(part, old, axes, scales), self._chooser.fresh(part)]
        like = self._like(part, scales)
        return min(ways if like is None else [like, *ways], key=lambda choice: choice.bits)

    def _like(self, part: Part, scales: list[Scales]) -> Choice | None:
        """From scales that come before it, so that none of two needs the other."""
        if part.itemsize != 4 or prod(part.shape) > MAX_COUNT:
            return None
        before = [each.new for each in scales if each.new.offset < part.offset]
        return self._chooser.like(part, before)

    def _neighbours(self, span: Span) -> tuple[int, int]:
        """Where in the base the text around a stretch's tensors goes on."""
        before, after = (0 if span[0] == 0 else -1), -1
        if span[1] == len(self._target):
            after = len(self._base.data)
        for part, (old, _) in self._found.items():
            if part.offset + part.length == span[0]:
                before = old.offset + old.length
            if part.offset == span[1]:
                after = old.offset
        return before, after

    def _bytes(self, part: Part) -> bytes:
        return self._target[part.offset : part.offset + part.length]

    def _old_bytes(self, part: Part) -> bytes:
        return self._base.data[part.offset : part.offset + part.length]


def _needed(chosen: Mapping[Part, Choice | None]) -> set[Part]:
    """What tensors are divided by or multiples of, and what that is a multiple of in turn."""
    needed: set[Part] = set()
    waiting = [choice for choice in chosen.values() if choice and choice.needs]
    while waiting:
        choice = waiting.pop()
        if choice.needs and choice.needs not in needed:
            needed.add(choice.needs)
            further = chosen[choice.needs]
            waiting += [further] if further and further.tensor.kind is Kind.FLOAT32 else []
    return needed


def _gaps(parts: Iterable[Part], size: int) -> Iterator[Span]:
    end = 0
    for part in parts:
        if part.offset > end:
            yield end, part.offset
        end = part.offset + part.length
    if size > end:
        yield end, size
