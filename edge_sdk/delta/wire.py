"""The delta file: what to do, and the differences.

::

    "EDGD" 02                        magic and version
    base_size target_size lanes      what goes in and comes out, in bytes; states of the coder
    program_size literals_size packed_size
    packed                           program and literals, by LZMA
    coded                            the differences, by :mod:`edge_sdk.delta.coder`

Numbers are unsigned LEB128, places in the base signed (zigzag) and relative to the end of what was
read last. The program is the maps, and then the instructions that fill the target in order; those
of tensors say whether they are needed before their turn.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterator
from math import isfinite, prod

from edge_sdk.delta.coder import bad_delta
from edge_sdk.delta.program import (
    MAX_COUNT,
    MAX_DIMENSIONS,
    Axis,
    Copy,
    Fresh,
    Instruction,
    Kind,
    Program,
    Scaling,
    Tensor,
    Text,
    check_program,
)

MAGIC = b"EDGD\x02"
MAX_PROGRAM_BYTES = 1 << 20
"""Of the inflated program; real ones have a few kilobytes."""
_DICTIONARY_BYTES = 1 << 20
"""What LZMA looks back, and allocates on the device."""
_FILTERS = [{"id": lzma.FILTER_LZMA1, "dict_size": _DICTIONARY_BYTES, "lc": 3, "lp": 0, "pb": 0}]
_NUMBER_BYTES = 9


def write_delta(program: Program) -> bytes:
    """A delta file."""
    out = _Out()
    out.number(len(program.maps))
    for indexes in program.maps:
        out.number(len(indexes))
        for before, index in zip((0, *indexes), indexes, strict=False):
            out.signed(index - before)
    for instruction in program.instructions:
        out.instruction(instruction)
    packed = lzma.compress(bytes(out.data) + program.literals, lzma.FORMAT_RAW, filters=_FILTERS)
    head = _Out()
    sizes = (program.base_size, program.target_size, program.lanes)
    for size in (*sizes, len(out.data), len(program.literals), len(packed)):
        head.number(size)
    return MAGIC + bytes(head.data) + packed + bytes(program.coded)


def read_delta(data: bytes | memoryview, base_size: int, target_size: int) -> Program:
    """Open a delta, which must be for a base and a target of these sizes.

    Args:
        data: the file.
        base_size: bytes of the base at hand.
        target_size: bytes that the result must have, by the signed manifest; bounds all memory.

    Raises:
        ContractError: ``contract.bad-delta``.
    """
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise bad_delta("it does not begin like one")
    head = _In(bytes(view[len(MAGIC) : len(MAGIC) + 6 * _NUMBER_BYTES]))
    base, target, lanes, program_size, literals_size, packed_size = (
        head.number() for _ in range(6)
    )
    if (base, target) != (base_size, target_size):
        raise bad_delta(f"it makes {target} bytes from {base}, not {target_size} from {base_size}")
    if program_size > MAX_PROGRAM_BYTES or literals_size > target_size:
        raise bad_delta("it is larger than what it makes")
    start = len(MAGIC) + head.at
    if packed_size > len(view) - start:
        raise bad_delta("it is cut off")
    stream = _inflate(view[start : start + packed_size], program_size + literals_size)
    program = Program(base, target, lanes, literals=stream[program_size:])
    program.coded = view[start + packed_size :]
    _parse(_In(stream[:program_size]), program)
    return program


def _inflate(packed: memoryview, size: int) -> bytes:
    stream = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        data = stream.decompress(packed, size + 1)
    except lzma.LZMAError as error:
        raise bad_delta(f"its program is damaged ({error})") from error
    if len(data) != size:
        raise bad_delta("its program has another length than it says")
    return data


def _parse(source: _In, program: Program) -> None:
    room, maps = MAX_COUNT, []
    for _ in range(source.count(MAX_COUNT)):
        maps.append(tuple(source.map(room)))
        room -= len(maps[-1])
    program.maps = maps
    instructions: list[Instruction] = []
    while not source.done:
        if len(instructions) >= MAX_COUNT:
            raise bad_delta("it has too many instructions")
        instructions.append(source.instruction())
    program.instructions = instructions
    check_program(program)


class _Out:
    def __init__(self) -> None:
        self.data = bytearray()
        self._cursor = 0

    def number(self, value: int) -> None:
        while value > 127:
            self.data.append(value & 127 | 128)
            value >>= 7
        self.data.append(value)

    def signed(self, value: int) -> None:
        self.number(value << 1 if value >= 0 else -value << 1 | 1)

    def place(self, place: int, length: int) -> None:
        self.signed(place - self._cursor)
        self._cursor = place + length

    def instruction(self, each: Instruction) -> None:
        match each:
            case Copy():
                self.number(0)
                self.number(each.length)
                self.place(each.place, each.length)
            case Fresh():
                self.number(1)
                self.number(each.length)
            case Text():
                self.number(2)
                self.number(each.length)
                self.place(each.place, each.length)
                self.number(each.first)
            case Tensor():
                self.tensor(each)

    def tensor(self, each: Tensor) -> None:
        based, scaled, like = each.place >= 0, each.scaling is not None, each.like >= 0
        self.number(
            3
            + each.kind
            + 4 * based
            + 8 * scaled
            + 16 * like
            + 32 * each.early
            + 64 * (each.rows > 0)
        )
        self.number(each.count)
        self.number(each.first)
        if based:
            self.number(len(each.axes))
            for axis in each.axes:
                self.axis(axis)
            sizes = [axis.size for axis in each.axes] or [each.count]
            self.place(each.place, prod(sizes) * each.kind.itemsize)
        if like:
            self.number(each.like)
        if each.scaling is not None:
            self.scaling(each.scaling, each.count)
        if each.rows:
            self.number(each.rows)

    def axis(self, axis: Axis) -> None:
        self.number(axis.size)
        self.number(axis.map)

    def scaling(self, each: Scaling, count: int) -> None:
        plain, whole = each.factor == 1.0, (each.inner, each.channels) == (count, 1)
        places = (each.old >= 0, each.old_axis is not None, each.new >= 0)
        flags = (plain, *places, bool(each.own), whole)
        self.number(sum(flag << bit for bit, flag in enumerate(flags)))
        if not plain:
            self.data += struct.pack("<f", each.factor)
        if not whole:
            self.number(each.inner)
            self.number(each.channels)
        if each.old >= 0:
            self.signed(each.old - self._cursor)
        if each.old_axis is not None:
            self.axis(each.old_axis)
        if each.new >= 0:
            self.number(each.new)
        for more in each.own:
            self.signed(more)


class _In:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = self._cursor = 0

    @property
    def done(self) -> bool:
        return self.at >= len(self._data)

    def number(self) -> int:
        value = shift = 0
        for byte in self._data[self.at : self.at + _NUMBER_BYTES]:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                self.at += shift // 7
                return value
        raise bad_delta("a number in it does not end")

    def count(self, most: int) -> int:
        value = self.known(self.number())
        if value > most:
            raise bad_delta("a list in it is too long")
        return value

    def known(self, value: int) -> int:
        """A count that was read before."""
        if value > MAX_COUNT or value > len(self._data) - self.at:
            raise bad_delta("it ends within a list")
        return value

    def signed(self) -> int:
        value = self.number()
        return -(value >> 1) if value & 1 else value >> 1

    def map(self, most: int) -> Iterator[int]:
        index = 0
        length = self.count(most)
        if not length:
            raise bad_delta("a map is empty")
        for _ in range(length):
            index += self.signed()
            if index < 0:
                raise bad_delta("a map leaves its axis")
            yield index

    def bytes(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise bad_delta("it ends within an instruction")
        self.at += size
        return self._data[self.at - size : self.at]

    def place(self, length: int) -> int:
        place = self._cursor + self.signed()
        if place < 0:
            raise bad_delta("it reads before its base")
        self._cursor = place + length
        return place

    def instruction(self) -> Instruction:
        opcode, length = self.number(), self.number()
        if opcode == 0:
            return Copy(self.place(length), length)
        if opcode == 1:
            return Fresh(length)
        if opcode == 2:
            return Text(self.place(length), length, self.number())
        if opcode >= 3 + 128:
            raise bad_delta(f"instruction {opcode} is unknown")
        return self.tensor(opcode - 3, length)

    def tensor(self, code: int, count: int) -> Tensor:
        kind, first = Kind(code & 3), self.number()
        place, like, scaling = -1, -1, None
        axes: tuple[Axis, ...] = ()
        if code & 4:
            axes = tuple(self.axis() for _ in range(self.count(MAX_DIMENSIONS)))
            sizes = [axis.size for axis in axes] or [count]
            place = self.place(prod(sizes) * kind.itemsize)
        if code & 16:
            like = self.number()
        if code & 8:
            scaling = self.scaling(count)
        rows = self.number() if code & 64 else 0
        return Tensor(kind, count, first, place, like, axes, scaling, bool(code & 32), rows)

    def axis(self) -> Axis:
        return Axis(self.number(), self.number())

    def scaling(self, count: int) -> Scaling:
        flags = self.number()
        factor: float = 1.0 if flags & 1 else struct.unpack("<f", self.bytes(4))[0]
        inner, channels = (count, 1) if flags & 32 else (self.number(), self.number())
        old = self._cursor + self.signed() if flags & 2 else -1
        axis = self.axis() if flags & 4 else None
        new = self.number() if flags & 8 else -1
        own = tuple(self.signed() for _ in range(self.known(channels))) if flags & 16 else ()
        if not isfinite(factor) or (flags & 2 and old < 0):
            raise bad_delta("a factor is none")
        return Scaling(factor, inner, channels, old, axis, new, own)
