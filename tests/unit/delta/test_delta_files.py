"""Deltas between files: exact, small, and of no consequence when they are damaged."""

from __future__ import annotations

import io
import lzma
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.delta.apply import apply_delta
from edge_sdk.delta.encode import Item, encode_delta
from edge_sdk.delta.find import DeltaBase
from edge_sdk.delta.program import (
    Axis,
    Copy,
    Fresh,
    Kind,
    Program,
    Scaling,
    Tensor,
    Text,
)
from edge_sdk.delta.wire import MAGIC, read_delta, write_delta
from edge_sdk.errors import ContractError
from edge_sdk.recipes.parts import Part
from tests.fakes.model_pairs import narrowed, onnx_file, rescaled, tflite_file, tuned, weights


def made(delta: bytes, base: bytes, size: int) -> bytes:
    """What a delta makes; every byte must be given exactly once."""
    out, given_ = bytearray(size), np.zeros(size, np.int64)
    for piece in apply_delta(delta, memoryview(base), size):
        if piece is not None:
            start, data = piece
            out[start : start + len(data)] = data
            given_[start : start + len(data)] += 1
    assert (given_ == 1).all()
    return bytes(out)


def delta_of(base: bytes, target: bytes) -> bytes:
    delta = DeltaBase(base).delta(target)
    assert delta is not None
    assert made(delta, base, len(target)) == target
    return delta


@pytest.mark.parametrize("int8", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize(
    ("change", "most"),
    [(tuned, (0.70, 0.45)), (rescaled, (0.20, 0.25)), (narrowed, (0.35, 0.55))],
    ids=["tuned", "rescaled", "narrowed"],
)
def test_onnx(tmp_path: Path, change, most: tuple[float, float], int8: bool) -> None:
    old = onnx_file(tmp_path / "old.onnx", weights(), int8=int8)
    new = onnx_file(tmp_path / "new.onnx", change(weights()), int8=int8)
    delta = delta_of(old, new)
    packed = len(lzma.compress(new))
    assert len(delta) < most[int8] * packed, (len(delta), packed)


def test_tflite(tmp_path: Path) -> None:
    old, new = tflite_file(tmp_path / "old.tflite"), tflite_file(tmp_path / "new.tflite", 1e-4)
    assert len(delta_of(old, new)) < 0.5 * len(new)
    assert len(delta_of(new, new)) < 60


def test_a_grown_tensor_and_one_that_is_new(tmp_path: Path) -> None:
    small, large = narrowed(weights()), weights()
    old, new = onnx_file(tmp_path / "a.onnx", small), onnx_file(tmp_path / "b.onnx", large)
    assert len(delta_of(old, new)) < len(new)


def test_golden_vectors_share_their_inputs() -> None:
    files = []
    inputs = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    for seed in (1, 2):
        output = np.random.default_rng(seed).normal(size=(16, 10)).astype(np.float32)
        file = io.BytesIO()
        np.savez_compressed(file, input=inputs, output=output)
        files.append(file.getvalue())
    assert len(delta_of(*files)) < 1000 < len(files[1]) / 10


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.binary(min_size=1, max_size=600), st.integers(0, 9))
def test_any_bytes(base: bytes, target: bytes, times: int) -> None:
    delta_of(base * times or b"-", target + base * times)


def test_text_with_small_changes_costs_little() -> None:
    source = random.Random(1)
    old = source.randbytes(5000)
    new = bytearray(old)
    for at in range(100, 4900, 400):
        new[at : at + 4] = source.randbytes(4)
    assert len(delta_of(old, bytes(new))) < 400
    assert len(delta_of(old, old[:2000] + b"inserted" + old[2000:])) < 100


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, bytes]:
    folder = tmp_path_factory.mktemp("pair")
    old = onnx_file(folder / "old.onnx", weights(), int8=True)
    new = onnx_file(folder / "new.onnx", tuned(narrowed(weights())), int8=True)
    return old, new, delta_of(old, new)


def outcome(delta: bytes, base: bytes, size: int) -> bytes | str:
    try:
        return made(delta, base, size)
    except ContractError as error:
        return error.code


def test_a_wrong_base_never_gives_the_right_file(pair: tuple[bytes, bytes, bytes]) -> None:
    old, new, delta = pair
    other = bytearray(old)
    at = len(old) // 2
    other[at : at + 2000] = bytes(2000)
    assert outcome(delta, bytes(other), len(new)) != new
    assert outcome(delta, old[:-1], len(new)) == "contract.bad-delta"
    assert outcome(delta, old, len(new) + 1) == "contract.bad-delta"


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_another_file(
    pair: tuple[bytes, bytes, bytes], data: st.DataObject
) -> None:
    """Nothing but the delta's own error comes out, and nothing outside of the target is written."""
    old, new, delta = pair
    damaged = bytearray(delta)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(delta) - 1) | st.integers(0, 40))
        damaged[at] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(delta)) | st.just(len(delta)))
    found = outcome(bytes(damaged[:cut]), old, len(new))
    assert found == "contract.bad-delta" or isinstance(found, bytes)


NUMBER = st.integers(0, 40) | st.integers(0, 1 << 20)
AXES = st.lists(st.builds(Axis, NUMBER, st.integers(0, 3)), max_size=3).map(tuple)
SCALING = st.builds(
    Scaling,
    st.sampled_from([1.0, 0.0, 0.5, 2.0**127, -2.0]),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(-1, 50),
    st.none() | st.builds(Axis, NUMBER, st.integers(0, 3)),
    st.integers(-1, 2),
)
TENSORS = st.builds(
    Tensor, st.sampled_from(Kind), NUMBER, NUMBER, st.integers(-1, 60), st.integers(-1, 2), AXES,
    st.none() | SCALING, st.booleans(), st.integers(0, 4),
)  # fmt: skip
INSTRUCTIONS = (
    st.builds(Copy, NUMBER, NUMBER)
    | st.builds(Fresh, st.integers(0, 30))
    | st.builds(Text, NUMBER, NUMBER, NUMBER)
    | TENSORS
)


@settings(max_examples=100, deadline=None)
@given(
    maps=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5).map(tuple), max_size=3),
    instructions=st.lists(INSTRUCTIONS, max_size=6),
    size=st.integers(0, 200),
)
def test_any_program_is_refused_or_stays_inside(maps, instructions, size: int) -> None:
    literals = bytes(each.length for each in instructions if isinstance(each, Fresh))
    program = Program(64, size, 1, maps, instructions, literals, bytes(4000))
    assert isinstance(outcome(write_delta(program), bytes(range(64)), size), str | bytes)


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = Program(10, 1 << 30, 1, instructions=[Fresh(1 << 24)], literals=bytes(1 << 24))
    data = write_delta(bomb)
    assert len(data) < 40_000
    tracemalloc.start()
    try:
        for size in (1000, 1 << 30):
            with pytest.raises(ContractError, match="bad-delta"):
                read_delta(data, 10, size)
            if size == 1000:
                assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_program_that_inflates_to_more_than_it_says() -> None:
    inner = lzma.compress(
        bytes(1 << 24),
        lzma.FORMAT_RAW,
        filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 3, "lp": 0, "pb": 0}],
    )
    size = len(inner)
    head = bytes([5, 5, 1, 3, 0, size & 127 | 128, size >> 7])
    tracemalloc.start()
    try:
        with pytest.raises(ContractError, match="another length"):
            read_delta(MAGIC + head + inner, 5, 5)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20, "the dictionary and little more"
    finally:
        tracemalloc.stop()


def test_a_large_tensor_is_worked_on_in_blocks() -> None:
    """Making a tensor of a million bytes needs the memory of a small part of it at a time."""
    count = 1 << 20
    tensor = Tensor(Kind.INT8, count, 0, 0)
    base = np.random.default_rng(0).integers(-100, 100, count).astype(np.int8)
    new = (base + (np.arange(count) % 97 == 0)).astype(np.int8)
    item = Item(0, tensor, Part("w", 0, (count,), 1))
    delta = encode_delta(base.tobytes(), new.tobytes(), [item], [])
    whole = memoryview(base.tobytes())
    tracemalloc.start()
    try:
        at = 0
        for piece in apply_delta(delta, whole, count):
            if piece is not None:
                assert piece[1] == new[at : at + len(piece[1])].tobytes()
                at += len(piece[1])
        assert at == count
        assert tracemalloc.get_traced_memory()[1] < 10 * count
    finally:
        tracemalloc.stop()
