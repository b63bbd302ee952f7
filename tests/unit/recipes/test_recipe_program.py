"""Recipes as bytes from outside: whatever they say, following them is bounded and checked."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import ContractError
from edge_sdk.recipes.build import build
from edge_sdk.recipes.program import (
    MAGIC,
    MAX_MULTIPLIER,
    MAX_PROGRAM_BYTES,
    Block,
    Instruction,
    Literal,
    Scaled,
    encode_recipe,
    open_recipe,
)

BASE = bytes(range(256)) * 4


def by_hand(base: bytes, program: list[Instruction], literals: bytes) -> bytes:
    """What a program makes, byte by byte, as its format is described."""
    out, fresh = bytearray(), iter(literals)
    for instruction in program:
        if isinstance(instruction, Literal):
            out += bytes(next(fresh) for _ in range(instruction.length))
            continue
        block = instruction.block if isinstance(instruction, Scaled) else instruction
        made = bytearray()
        starts = [block.offset]
        for count, stride in block.dims:
            starts = [start + step * stride for start in starts for step in range(count)]
        for start in starts:
            at = start
            for skip, length in block.segments:
                made += base[at + skip : at + skip + length]
                at += skip + length
        if isinstance(instruction, Scaled):
            for index, byte in enumerate(made):
                turn = index // instruction.inner % len(instruction.multipliers)
                signed = byte - 256 if byte > 127 else byte
                product = (signed * instruction.multipliers[turn] + 32768) >> 16
                made[index] = (min(max(product, -128), 127) + next(fresh)) % 256
        out += made
    return bytes(out)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    dims = tuple(
        (draw(st.integers(1, 4)), draw(st.integers(0, 40))) for _ in range(draw(st.integers(0, 3)))
    )
    segments = tuple(
        (draw(st.integers(0, 9)), draw(st.integers(1, 9))) for _ in range(draw(st.integers(1, 3)))
    )
    block = Block(0, segments, dims)
    return Block(draw(st.integers(0, len(BASE) - block.end)), segments, dims)


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Instruction], bytes]:
    program: list[Instruction] = []
    borrowed = 0
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["literal", "copy", "scaled"]))
        instruction: Instruction
        instruction = Literal(draw(st.integers(1, 30))) if kind == "literal" else draw(blocks())
        if kind == "scaled" and isinstance(instruction, Block):
            count = draw(st.sampled_from([n for n in range(1, 9) if instruction.length % n == 0]))
            factors = st.one_of(st.integers(0, 1 << 18), st.just(MAX_MULTIPLIER))
            instruction = Scaled(
                instruction,
                instruction.length // count,
                tuple(draw(factors) for _ in range(count)),
            )
        if not isinstance(instruction, Block):
            borrowed += instruction.length
        program.append(instruction)
    return program, draw(st.binary(min_size=borrowed, max_size=borrowed))


def follow(data: bytes, base: bytes, size: int) -> bytes:
    target = bytearray(size)
    build(open_recipe(data, len(base), size), base, target)
    return bytes(target)


@given(programs())
def test_a_program_makes_what_it_describes(case: tuple[list[Instruction], bytes]) -> None:
    program, literals = case
    expected = by_hand(BASE, program, literals)
    data = encode_recipe(len(BASE), program, literals)
    recipe = open_recipe(data, len(BASE), len(expected))
    assert list(recipe.instructions()) == program
    assert follow(data, BASE, len(expected)) == expected


@given(programs(), st.data())
def test_a_damaged_recipe_is_refused_or_harmless(
    case: tuple[list[Instruction], bytes], data: st.DataObject
) -> None:
    """Cut, flipped or swollen: an error with a code, or bytes that the digest will refuse."""
    program, literals = case
    size = len(by_hand(BASE, program, literals))
    recipe = bytearray(encode_recipe(len(BASE), program, literals))
    harm = data.draw(st.sampled_from(["cut", "flip", "grow"]))
    at = data.draw(st.integers(0, len(recipe) - 1))
    if harm == "cut":
        del recipe[at:]
    elif harm == "flip":
        recipe[at] ^= data.draw(st.integers(1, 255))
    else:
        recipe[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    try:
        assert len(follow(bytes(recipe), BASE, size)) == size
    except ContractError as error:
        assert error.code == "contract.bad-recipe"


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def raw(program: bytes, literals: bytes, target: int, base: int = len(BASE)) -> bytes:
    header = b"".join(map(number, (base, target, len(program), len(literals))))
    return MAGIC + header + zlib.compress(program + literals)


@given(program=st.binary(max_size=60), literals=st.binary(max_size=20), size=st.integers(0, 300))
@settings(max_examples=300)
def test_any_bytes_as_a_program(program: bytes, literals: bytes, size: int) -> None:
    try:
        follow(raw(program, literals, size), BASE, size)
    except ContractError as error:
        assert error.code == "contract.bad-recipe"


@given(st.binary(max_size=200))
def test_any_bytes_as_a_recipe(data: bytes) -> None:
    for prefix in (b"", MAGIC):
        with pytest.raises(ContractError, match="bad-recipe"):
            follow(prefix + data, BASE, 1 << 20)


HUGE = (1 << 63) - 1


@pytest.mark.parametrize(
    "program",
    [
        [Block(0, ((0, len(BASE) + 1),))],
        [Block(len(BASE), ((0, 1),))],
        [Block(HUGE, ((0, 1),))],
        [Block(0, ((HUGE, 1),))],
        [Block(0, ((0, 1),), ((HUGE, 0),))],
        [Block(0, ((0, 1),), ((2, HUGE),))],
        [Block(0, ((0, 1),), ((1, 1),) * 9)],
        [Block(0, ())],
        [Block(0, ((0, 4),), ((0, 1),))],
        [Literal(0)],
        [Literal(HUGE)],
        [Scaled(Block(0, ((0, 4),)), 4, ())],
        [Scaled(Block(0, ((0, 4),)), 0, (65536,))],
        [Scaled(Block(0, ((0, 4),)), 3, (65536,))],
        [Scaled(Block(0, ((0, 4),)), 4, (MAX_MULTIPLIER + 1,))],
    ],
)
def test_programs_that_reach_too_far(program: list[Instruction]) -> None:
    """None of them reads outside of its base, writes outside of its target or takes memory."""
    literals = bytes(4)
    good = encode_recipe(len(BASE), [Literal(4)], literals)
    body = encode_recipe(len(BASE), program, literals)
    assert follow(good, BASE, 4) == literals
    size = min(sum(each.length for each in program), 1 << 20)
    packed = zlib.decompressobj()
    inflated = packed.decompress(body[body.index(b"\x78\xda") :])
    instructions = inflated[: len(inflated) - 4]
    tracemalloc.start()
    with pytest.raises(ContractError, match="bad-recipe"):
        follow(raw(instructions, literals, size), BASE, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_bomb_is_not_inflated() -> None:
    bomb = zlib.compress(bytes(200 << 20), 9)
    header = b"".join(map(number, (len(BASE), 64, 10, 20)))
    tracemalloc.start()
    with pytest.raises(ContractError, match="another length"):
        open_recipe(MAGIC + header + bomb, len(BASE), 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("opcode", ["segments", "multipliers"])
def test_an_instruction_of_millions_of_numbers_is_not_decoded(opcode: str) -> None:
    ones = b"\x00\x01" * (1 << 20)
    if opcode == "segments":
        program = number(1) + number(0) + number(0) + number(1 << 20) + ones
    else:
        block = number(0) + number(0) + number(1) + number(0) + number(1)
        program = number(2) + block + number(1) + number(1 << 21) + ones
    recipe = open_recipe(raw(program, b"", 1 << 20), len(BASE), 1 << 20)
    tracemalloc.start()
    with pytest.raises(ContractError, match="too long"):
        list(recipe.instructions())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("base", "target", "program", "literals"),
    [
        (9, 64, 1, 1),
        (len(BASE), 63, 1, 1),
        (len(BASE), 64, MAX_PROGRAM_BYTES + 1, 1),
        (len(BASE), 64, 1, 65),
    ],
)
def test_headers_that_promise_something_else(
    base: int, target: int, program: int, literals: int
) -> None:
    header = b"".join(map(number, (base, target, program, literals)))
    with pytest.raises(ContractError, match="bad-recipe"):
        open_recipe(MAGIC + header + zlib.compress(bytes(2)), len(BASE), 64)


def test_a_base_or_a_target_of_another_size() -> None:
    recipe = open_recipe(encode_recipe(len(BASE), [Literal(3)], b"abc"), len(BASE), 3)
    for base, size in ((BASE[1:], 3), (BASE, 4)):
        with pytest.raises(ContractError, match="another size"):
            build(recipe, base, bytearray(size))
