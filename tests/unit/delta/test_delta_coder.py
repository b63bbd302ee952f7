"""The entropy coder and its models: whatever goes in comes out, and close to its entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.delta.coder import MAX_LANES, Reader, Table, Writer
from edge_sdk.delta.values import (
    HALF,
    LONG,
    SMALL,
    TEXT,
    Alphabet,
    Modeller,
    cost_bits,
    expectation,
    tokens_of,
    unzigzag,
    zigzag,
)
from edge_sdk.errors import ContractError

ALPHABETS = {"small": SMALL, "text": TEXT, "half": HALF, "long": LONG}
TOP = {"small": 2**8, "text": 2**8, "half": 2**16, "long": 2**32}


def there(alphabet: Alphabet, values: np.ndarray, sides: np.ndarray, lanes: int) -> bytes:
    writer = Writer(lanes)
    first = expectation(alphabet, values, sides)
    list(Modeller(alphabet).code(writer, len(values), first, sides, values))
    return writer.finish()


def back(alphabet: Alphabet, data: bytes, count: int, first: int, sides: np.ndarray, lanes: int):
    reader = Reader(data, lanes)
    *breaths, found = Modeller(alphabet).code(reader, count, first, sides, None)
    assert all(breath is None for breath in breaths)
    reader.finish()
    return found


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(ALPHABETS)), st.sampled_from([1, 2, 7, 64]))
def test_any_numbers_come_back(data: st.DataObject, name: str, lanes: int) -> None:
    alphabet = ALPHABETS[name]
    numbers = st.integers(0, TOP[name] - 1) | st.integers(0, 3)
    values = np.array(data.draw(st.lists(numbers, min_size=1, max_size=300)), np.int64)
    limit = alphabet.sides or 512
    one = data.draw(st.booleans())
    sides = np.random.default_rng(len(values)).integers(0, limit, 1 if one else len(values))
    sides = sides.astype(np.uint16)
    coded = there(alphabet, values, sides, lanes)
    first = expectation(alphabet, values, sides)
    assert np.array_equal(back(alphabet, coded, len(values), first, sides, lanes), values)


def test_the_size_is_near_the_entropy() -> None:
    random = np.random.default_rng(1)
    values = zigzag(np.rint(random.laplace(0, 1.5, 60_000)).astype(np.int64).clip(-128, 127))
    shares = np.bincount(values) / len(values)
    entropy = -sum(p * math.log2(p) for p in shares if p) * len(values) / 8
    side = np.array([8], np.uint16)
    assert len(there(SMALL, values, side, 16)) < 1.02 * entropy
    assert abs(cost_bits(SMALL, values, side) / 8 / entropy - 1) < 0.02


def test_neighbours_of_a_size_are_cheaper_than_a_mixture() -> None:
    random = np.random.default_rng(2)
    width = np.repeat([0.3, 6.0, 0.3, 6.0], 4000)
    values = zigzag(np.rint(random.laplace(0, width)).astype(np.int64).clip(-128, 127))
    side = np.array([8], np.uint16)
    mixed = random.permutation(values)
    assert len(there(SMALL, values, side, 4)) < 0.9 * len(there(SMALL, mixed, side, 4))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50))
def test_zigzag_and_tokens(numbers: list[int]) -> None:
    signed = np.array(numbers, np.int64)
    values = zigzag(signed)
    assert np.array_equal(unzigzag(values), signed)
    assert ((values >= 0) & (values < 2**32)).all()
    assert (tokens_of(values) < LONG.symbols).all()
    assert (tokens_of(values[values < 256]) < SMALL.symbols).all()


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 9), st.integers(1, 200))
def test_garbage_is_refused_or_read_as_something(data: bytes, lanes: int, count: int) -> None:
    side = np.zeros(1, np.uint16)
    try:
        found = back(LONG, data, count, 0, side, lanes)
    except ContractError as error:
        assert error.code == "contract.bad-delta"
    else:
        assert len(found) == count


def test_a_changed_word_is_noticed() -> None:
    values = zigzag(np.random.default_rng(3).integers(-9, 10, 5000))
    side = np.array([8], np.uint16)
    coded = bytearray(there(SMALL, values, side, 4))
    coded[len(coded) // 2] ^= 1
    with pytest.raises(ContractError, match="bad-delta"):
        back(SMALL, bytes(coded), len(values), expectation(SMALL, values, side), side, 4)


def test_more_lanes_than_there_may_be() -> None:
    with pytest.raises(ContractError, match="bad-delta"):
        Reader(bytes(4 * (MAX_LANES + 1)), MAX_LANES + 1)


def test_tables_add_up_whatever_was_counted() -> None:
    table = Table(np.ones((3, 5), np.int64))
    for _ in range(40):
        table.learn(np.full(4000, 7))
    assert (table.shares.reshape(3, 5).sum(1) == 1 << 15).all()
    assert (table.shares > 0).all()
