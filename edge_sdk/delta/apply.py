"""Following a delta: the device's half, which knows no file format."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import numpy.typing as npt

from edge_sdk.delta.coder import Ints, Reader
from edge_sdk.delta.mixing import told_count
from edge_sdk.delta.predict import (
    ALPHABETS,
    NO_SIDE,
    MixedRows,
    blocks,
    channel_of,
    corrected,
    expected,
    factors,
    gathered,
)
from edge_sdk.delta.program import Copy, Fresh, Instruction, Kind, Program, Tensor, Text
from edge_sdk.delta.values import MIXING, TEXT, Alphabet, Modeller, unzigzag
from edge_sdk.delta.wire import read_delta

COPY_BYTES = 1 << 18
"""Copied at a time."""

Piece = tuple[int, bytes]
"""Where in the target, and what."""


def apply_delta(
    delta: bytes | memoryview, base: memoryview, target_size: int
) -> Iterator[Piece | None]:
    """What a delta makes, piece by piece; None now and then, when a piece takes longer.

    Each byte of the target is given once, in no particular order. The caller verifies the result:
    only its digest tells whether base and delta belonged together.

    Args:
        delta: the file.
        base: the file it is for.
        target_size: bytes of the result, by the signed manifest.

    Raises:
        ContractError: ``contract.bad-delta``, at the beginning or between two pieces.
    """
    program = read_delta(delta, len(base), target_size)
    yield from _Machine(program, base).run()


class _Machine:
    def __init__(self, program: Program, base: memoryview) -> None:
        self._program, self._base = program, base
        self._reader = Reader(program.coded, program.lanes)
        self._modellers: dict[Alphabet, Modeller] = {}
        self._early: list[npt.NDArray[np.float32]] = []
        self._borrowed = 0

    def run(self) -> Iterator[Piece | None]:
        for now in (True, False):
            at = 0
            for each in self._program.instructions:
                early = isinstance(each, Tensor) and each.early
                if early == now:
                    yield from self._made(each, at, early)
                at += each.length
        self._reader.finish()

    def _made(self, each: Instruction, at: int, keep: bool) -> Iterator[Piece | None]:
        kept = bytearray()
        for data in self._follow(each):
            if data is None:
                yield None
                continue
            yield at, data
            at += len(data)
            if keep:
                kept += data
        if keep:
            self._early.append(np.frombuffer(bytes(kept), "<f4"))

    def _follow(self, each: Instruction) -> Iterator[bytes | None]:
        match each:
            case Copy():
                end = each.place + each.length
                for start in range(each.place, end, COPY_BYTES):
                    yield bytes(self._base[start : min(start + COPY_BYTES, end)])
            case Fresh():
                self._borrowed += each.length
                yield self._program.literals[self._borrowed - each.length : self._borrowed]
            case Text():
                yield from self._text(each)
            case Tensor():
                yield from self._tensor(each)

    def _text(self, each: Text) -> Iterator[bytes | None]:
        old = np.frombuffer(self._base, np.int8, each.length, each.place).astype(np.int64)
        for start, stop in blocks(each.length):
            coding = self._modeller(TEXT).code(
                self._reader, stop - start, each.first, NO_SIDE, None
            )
            for coded in coding:
                yield None if coded is None else corrected(Kind.INT8, old[start:stop], coded)

    def _tensor(self, each: Tensor) -> Iterator[bytes | None]:
        old, factor = None, None
        if each.place >= 0:
            old = gathered(self._base, each, self._program.maps)
        elif each.like >= 0:
            old = self._early[each.like].view("<u4")
        if each.scaling is not None:
            factor = factors(self._base, each.kind, each.scaling, self._program.maps, self._early)
        modeller, mixed = self._modeller(ALPHABETS[each.kind]), None
        if each.rows:
            told = yield from self._told(each)
            mixed = MixedRows(each, told)
        for start, stop in blocks(each.count, each.width):
            multipliers = None
            if each.scaling is not None and factor is not None:
                multipliers = factor[channel_of(each.scaling, start, stop)]
            part = None if old is None else old[start:stop]
            expectation, sides = expected(each.kind, part, multipliers)
            sides = sides if mixed is None else mixed.sides(sides)
            for coded in modeller.code(self._reader, stop - start, each.first, sides, None):
                if coded is None:
                    yield None
                elif mixed is None or part is None:
                    yield corrected(each.kind, expectation, coded)
                else:
                    yield from mixed.corrected(part, multipliers, coded)

    def _told(self, each: Tensor) -> Generator[None, None, Ints]:
        """What mixed rows need."""
        found = []
        for start, stop in blocks(told_count(each.rows, each.width)):
            coding = self._modeller(MIXING).code(self._reader, stop - start, 0, NO_SIDE, None)
            for coded in coding:
                if coded is None:
                    yield
                else:
                    found.append(unzigzag(coded))
        return np.concatenate(found)

    def _modeller(self, alphabet: Alphabet) -> Modeller:
        if alphabet not in self._modellers:
            self._modellers[alphabet] = Modeller(alphabet)
        return self._modellers[alphabet]
