"""The recipe file: a header, and a compressed stream of instructions and literal bytes.

::

    "EDGR" 01                     magic and version
    base_size target_size         what goes in and comes out, in bytes
    program_size literals_size    of the two parts of the stream, inflated
    zlib(program + literals)

Numbers are unsigned LEB128. An instruction is an opcode and its numbers::

    0 length                                literal: the next bytes of the literals
    1 BLOCK                                 copy: a block of the base
    2 BLOCK inner count multiplier*         scaled: signed bytes of a block, multiplied, plus the
                                            next bytes of the literals
    BLOCK = dims (count stride)* offset segments (skip length)*

A block is an array of rows: dimension ``i`` has ``count`` steps of ``stride`` bytes, starting at
``offset``; a row is the concatenation of its segments, each ``length`` bytes long and ``skip``
bytes behind the one before. A prefix of a row-major tensor is one such block, and so is a plain
range of bytes (no dimensions, one segment).

A scaled block is for int8 weights that were quantized anew: their channels have other scales than
the base's, so they are nearly a multiple of its values. Byte ``k`` of the block becomes
``clip((byte * multipliers[k // inner % count] + 32768) >> 16) + literal`` in whole numbers, which
are the same on every machine; the literals are mostly zero and pack well.

Everything is checked before it is used: a recipe is bytes from outside, and a damaged or hostile
one must cost neither memory nor time beyond the size its signed manifest states.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from edge_sdk.errors import ContractError

MAGIC = b"EDGR\x01"
MAX_PROGRAM_BYTES = 4 * 1024 * 1024
"""Instructions of one recipe, inflated; real ones have a few kilobytes."""
MAX_DIMENSIONS = 8
MAX_COUNT = 65_536
"""Segments or multipliers of one instruction."""
MAX_MULTIPLIER = 128 << 16
"""Beyond it every byte but zero is clipped anyway; the products fit 32 bits."""
_HEADER_NUMBERS = 4
_MAX_NUMBER_BYTES = 9
"""63 bits."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are nowhere in the base."""

    length: int


@dataclass(frozen=True, slots=True)
class Block:
    """A strided block of the base."""

    offset: int
    segments: tuple[tuple[int, int], ...]
    """(skip, length) of each part of a row, in bytes; ``skip`` counts from the end of the part
    before, or from the row's start."""
    dims: tuple[tuple[int, int], ...] = ()
    """(count, stride in bytes) of each dimension, outermost first."""

    @property
    def row_bytes(self) -> int:
        """Bytes that one row gives."""
        return sum(length for _, length in self.segments)

    @property
    def length(self) -> int:
        """Bytes that the block gives."""
        return prod(count for count, _ in self.dims) * self.row_bytes

    @property
    def end(self) -> int:
        """First byte of the base behind everything the block reads."""
        row = sum(skip + length for skip, length in self.segments)
        return self.offset + sum((count - 1) * stride for count, stride in self.dims) + row


@dataclass(frozen=True, slots=True)
class Scaled:
    """A block of signed bytes, multiplied and corrected."""

    block: Block
    inner: int
    """Consecutive bytes with one multiplier."""
    multipliers: tuple[int, ...]
    """In 1/65536; they take turns every :attr:`inner` bytes."""

    @property
    def length(self) -> int:
        """Bytes that it gives, and takes of the literals."""
        return self.block.length


Instruction: TypeAlias = Literal | Block | Scaled


@dataclass(frozen=True, slots=True)
class Recipe:
    """An opened recipe; its instructions are decoded as they are needed."""

    base_size: int
    target_size: int
    literals: bytes
    _program: bytes

    def instructions(self) -> Iterator[Instruction]:
        """The instructions in order, each checked against the base's and the target's size.

        Raises:
            ContractError: ``contract.bad-recipe``.
        """
        at = written = borrowed = 0
        while at < len(self._program):
            instruction, at = _instruction(self._program, at)
            written += instruction.length
            if not isinstance(instruction, Block):
                borrowed += instruction.length
            if not isinstance(instruction, Literal):
                self._check_block(instruction)
            if not instruction.length:
                raise bad_recipe("an instruction does nothing")
            if written > self.target_size or borrowed > len(self.literals):
                raise bad_recipe("it writes more than it says")
            yield instruction
        if written != self.target_size or borrowed != len(self.literals):
            raise bad_recipe("it writes less than it says")

    def _check_block(self, instruction: Block | Scaled) -> None:
        block = instruction.block if isinstance(instruction, Scaled) else instruction
        if block.end > self.base_size:
            raise bad_recipe("it reads beyond the end of its base")
        if isinstance(instruction, Scaled):
            turn = instruction.inner * len(instruction.multipliers)
            if not turn or block.length % turn or len(instruction.multipliers) > MAX_COUNT:
                raise bad_recipe("its multipliers do not fit their block")
            if max(instruction.multipliers) > MAX_MULTIPLIER:
                raise bad_recipe("a multiplier is too large")


def encode_recipe(base_size: int, instructions: Iterable[Instruction], literals: bytes) -> bytes:
    """A recipe file.

    Args:
        base_size: bytes of the base.
        instructions: in the order of the target.
        literals: the bytes of all literals and differences, in order.
    """
    program, target_size = bytearray(), 0
    for instruction in instructions:
        target_size += instruction.length
        for number in _numbers_of(instruction):
            program += _number(number)
    header = (base_size, target_size, len(program), len(literals))
    packed = zlib.compress(bytes(program) + literals, 9)
    return MAGIC + b"".join(map(_number, header)) + packed


def open_recipe(data: bytes, base_size: int, target_size: int) -> Recipe:
    """Inflate a recipe, which must be for a base and a target of these sizes.

    Args:
        data: the file.
        base_size: bytes of the base at hand.
        target_size: bytes the result must have, by the signed manifest; bounds all memory used.

    Raises:
        ContractError: ``contract.bad-recipe``.
    """
    if not data.startswith(MAGIC):
        raise bad_recipe("it does not begin like one")
    at, header = len(MAGIC), []
    for _ in range(_HEADER_NUMBERS):
        number, at = _read_number(data, at)
        header.append(number)
    if header[:2] != [base_size, target_size]:
        raise bad_recipe(
            f"it makes {header[1]} bytes from {header[0]}, not {target_size} from {base_size}"
        )
    program_size, literals_size = header[2:]
    if program_size > MAX_PROGRAM_BYTES or literals_size > target_size:
        raise bad_recipe("it is larger than what it makes")
    stream = _inflate(data[at:], program_size + literals_size)
    return Recipe(base_size, target_size, stream[program_size:], stream[:program_size])


def bad_recipe(problem: str) -> ContractError:
    """A recipe that cannot be followed."""
    return ContractError(
        "bad-recipe",
        f"A recipe of the release is malformed: {problem}.",
        "Create the release again with `edge release create`.",
    )


def _inflate(packed: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise bad_recipe(f"its stream is damaged ({error})") from error
    if len(data) != size or not stream.eof or stream.unused_data:
        raise bad_recipe("its stream has another length than it says")
    return data


def _numbers_of(instruction: Instruction) -> Iterator[int]:
    if isinstance(instruction, Literal):
        yield from (0, instruction.length)
    elif isinstance(instruction, Block):
        yield 1
        yield from _block_numbers(instruction)
    else:
        yield 2
        yield from _block_numbers(instruction.block)
        yield from (instruction.inner, len(instruction.multipliers), *instruction.multipliers)


def _block_numbers(block: Block) -> Iterator[int]:
    yield len(block.dims)
    for dimension in block.dims:
        yield from dimension
    yield from (block.offset, len(block.segments))
    for segment in block.segments:
        yield from segment


def _instruction(program: bytes, at: int) -> tuple[Instruction, int]:
    opcode, at = _read_number(program, at)
    if opcode == 0:
        length, at = _read_number(program, at)
        return Literal(length), at
    if opcode > 2:
        raise bad_recipe(f"instruction {opcode} is unknown")
    block, at = _block(program, at)
    if opcode == 1:
        return block, at
    inner, at = _read_number(program, at)
    count, at = _read_number(program, at)
    multipliers, at = _read_numbers(program, at, count)
    return Scaled(block, inner, multipliers), at


def _block(program: bytes, at: int) -> tuple[Block, int]:
    count, at = _read_number(program, at)
    if count > MAX_DIMENSIONS:
        raise bad_recipe(f"a block has {count} dimensions")
    dims, at = _pairs(program, at, count)
    offset, at = _read_number(program, at)
    count, at = _read_number(program, at)
    segments, at = _pairs(program, at, count)
    return Block(offset, segments, dims), at


def _pairs(program: bytes, at: int, count: int) -> tuple[tuple[tuple[int, int], ...], int]:
    numbers, at = _read_numbers(program, at, 2 * count)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True)), at


def _read_numbers(program: bytes, at: int, count: int) -> tuple[tuple[int, ...], int]:
    if count > 2 * MAX_COUNT or count > len(program) - at:
        raise bad_recipe("an instruction is too long, or it ends within one")
    numbers = []
    for _ in range(count):
        number, at = _read_number(program, at)
        numbers.append(number)
    return tuple(numbers), at


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + _MAX_NUMBER_BYTES]:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at + shift // 7
    raise bad_recipe("a number in it does not end")
