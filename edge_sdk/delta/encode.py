"""Writing a program whose predictions have been chosen. The host's half."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.delta.coder import MAX_LANES, Ints, Writer
from edge_sdk.delta.predict import ALPHABETS, NO_SIDE, blocks, differences
from edge_sdk.delta.program import (
    Copy,
    Fresh,
    Instruction,
    Kind,
    Map,
    Program,
    Tensor,
    Text,
)
from edge_sdk.delta.tensors import Chooser
from edge_sdk.delta.values import MIXING, TEXT, Alphabet, Modeller, Sides, expectation, zigzag
from edge_sdk.delta.wire import write_delta
from edge_sdk.recipes.parts import Part

NUMBERS_PER_LANE = 3000
"""A lane costs two bytes, and makes coding faster."""
BYTES_PER_LANE = 256
"""Fewer where nearly all differences are none."""
MOST_PER_LANE = 16_000
"""Bounds the time that coding takes."""


@dataclass(frozen=True, slots=True)
class Item:
    """An instruction, and where what it makes lies in the target."""

    at: int
    instruction: Instruction
    part: Part | None = None
    """Of the target, for a tensor."""
    needs: Part | None = None
    """The new scales that it is divided by."""
    told: Ints | None = None
    """How its rows are mixed."""

    @property
    def early(self) -> bool:
        """Whether others need it."""
        return isinstance(self.instruction, Tensor) and self.instruction.early


def encode_delta(base: bytes, target: bytes, items: Sequence[Item], maps: list[Map]) -> bytes:
    """A delta file.

    Args:
        base: the old file.
        target: the new file.
        items: what makes the target, ascending.
        maps: that the tensors use.
    """
    count = sum(_numbers(item.instruction) for item in items)
    lanes = 1 << min(count // NUMBERS_PER_LANE, MAX_LANES - 1).bit_length()
    while True:
        coding = _Coding(base, target, items, maps, lanes)
        instructions = list(coding.instructions())
        coded = coding.writer.finish()
        fewer = 1 << max(len(coded) // BYTES_PER_LANE, count // MOST_PER_LANE).bit_length()
        if fewer >= lanes:
            break
        lanes = fewer
    literals = b"".join(
        target[item.at : item.at + item.instruction.length]
        for item in items
        if isinstance(item.instruction, Fresh)
    )
    return write_delta(
        Program(
            base_size=len(base),
            target_size=len(target),
            lanes=lanes,
            maps=maps,
            instructions=list(_joined(instructions)),
            literals=literals,
            coded=coded,
        )
    )


def _numbers(each: Instruction) -> int:
    """How many are coded."""
    match each:
        case Tensor():
            return each.count
        case Text():
            return each.length
    return 0


class _Coding:
    def __init__(
        self, base: bytes, target: bytes, items: Sequence[Item], maps: list[Map], lanes: int
    ) -> None:
        self._base, self._target = base, target
        self._items = items
        self._early = [item.part for item in items if item.early]
        self._chooser = Chooser(base, target, maps)
        self._modellers: dict[Alphabet, Modeller] = {}
        self.writer = Writer(lanes)

    def instructions(self) -> Iterator[Instruction]:
        """Instructions as they are written, their differences coded."""
        early = iter([self._instruction(item) for item in self._items if item.early])
        for item in self._items:
            yield next(early) if item.early else self._instruction(item)

    def _instruction(self, item: Item) -> Instruction:
        if isinstance(item.instruction, Tensor):
            return self._tensor(item)
        if isinstance(item.instruction, Text):
            return self._text(item.instruction, item.at)
        return item.instruction

    def _tensor(self, item: Item) -> Tensor:
        tensor = item.instruction
        if not isinstance(tensor, Tensor) or item.part is None:
            raise TypeError("not a tensor")
        alphabet = ALPHABETS[tensor.kind]
        if item.told is not None:
            self._code(MIXING, 0, zigzag(item.told), NO_SIDE)
        values, sides = self._chooser.values(item.part, tensor, item.needs, item.told)
        tensor = replace(tensor, first=expectation(alphabet, values, sides))
        self._code(alphabet, tensor.first, values, sides, tensor.width)
        if item.needs is None or tensor.scaling is None:
            return tensor
        number = self._early.index(item.needs)
        if tensor.like >= 0:
            return replace(tensor, like=number)
        return replace(tensor, scaling=replace(tensor.scaling, new=number))

    def _text(self, each: Text, at: int) -> Text:
        old, new = (
            np.frombuffer(data, np.int8, each.length, start).astype(np.int64)
            for data, start in ((self._base, each.place), (self._target, at))
        )
        values = differences(Kind.INT8, new, old)
        text = replace(each, first=expectation(TEXT, values, NO_SIDE))
        self._code(TEXT, text.first, values, NO_SIDE)
        return text

    def _code(
        self, alphabet: Alphabet, first: int, values: Ints, sides: Sides, width: int = 1
    ) -> None:
        if alphabet not in self._modellers:
            self._modellers[alphabet] = Modeller(alphabet)
        modeller = self._modellers[alphabet]
        for start, stop in blocks(len(values), width):
            part = sides[start:stop] if len(sides) == len(values) else sides
            for _ in modeller.code(self.writer, stop - start, first, part, values[start:stop]):
                pass


def _joined(instructions: Sequence[Instruction]) -> Iterator[Instruction]:
    """Copies that continue each other as one."""
    waiting: Copy | Fresh | None = None
    for each in instructions:
        match waiting, each:
            case Copy(place, length), Copy() if place + length == each.place:
                waiting = Copy(place, length + each.length)
                continue
            case Fresh(length), Fresh():
                waiting = Fresh(length + each.length)
                continue
        if waiting is not None:
            yield waiting
        waiting = each if isinstance(each, Copy | Fresh) else None
        if waiting is None:
            yield each
    if waiting is not None:
        yield waiting
