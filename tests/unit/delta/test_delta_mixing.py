"""Rows that moved together: exact whatever they hold, small where there is something to know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_sdk.delta.apply import apply_delta
from edge_sdk.delta.encode import Item, encode_delta
from edge_sdk.delta.find import DeltaBase
from edge_sdk.delta.fits import fit, usual
from edge_sdk.delta.mixes import find_mix
from edge_sdk.delta.mixing import MAX_ROWS, MAX_TOLD, told_count
from edge_sdk.delta.predict import MixedRows
from edge_sdk.delta.program import Copy, Kind, Program, Tensor
from edge_sdk.delta.tensors import Chooser
from edge_sdk.delta.wire import read_delta, write_delta
from edge_sdk.errors import ContractError
from edge_sdk.recipes.parts import Part
from tests.fakes.model_pairs import onnx_file, weights


def together(rows: int, width: int, rank: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix before and after: a movement of that rank, and a little of each number's own."""
    random = np.random.default_rng(seed)
    old = random.normal(0, 0.1, (rows, width))
    move = random.normal(size=(rows, rank)) @ random.normal(size=(rank, width))
    new = old + 1e-3 * (move + 0.05 * random.normal(size=old.shape))
    return old.astype(np.float32), new.astype(np.float32)


def told_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Weights for rows none of whose columns is quiet."""
    mix = find_mix(old.astype(np.float64), new.astype(np.float64))
    return np.append(np.zeros(old.shape[1], np.int64), mix)


def there_and_back(old: np.ndarray, new: np.ndarray, told: np.ndarray, factor: float) -> np.ndarray:
    """Coded differences, from which the same numbers must be made."""
    tensor = Tensor(Kind.FLOAT32, old.size, 0, 0, rows=len(old))
    base, target = old.ravel().view("<u4"), new.ravel().view("<u4")
    multipliers = np.full(old.size, factor) if factor != 1 else None
    values = MixedRows(tensor, told).differences(base, multipliers, target)
    made = b"".join(MixedRows(tensor, told).corrected(base, multipliers, values))
    assert made == target.tobytes()
    return values


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint32, (2, 5, 3)),
    arrays.arrays(np.int64, 18, elements=st.integers(-128, 127)),
    st.sampled_from([1.0, 0.3, -1e30]),
)
def test_any_rows_come_back(bits: np.ndarray, told: np.ndarray, factor: float) -> None:
    """Not numbers and infinities among them, with any weights."""
    old, new = bits.view(np.float32)
    there_and_back(old, new, told, factor)


def test_what_moved_together_costs_less() -> None:
    old, new = together(48, 120, 3)
    told = told_of(old, new)
    assert len(told) == told_count(48, 120)
    mixed = there_and_back(old, new, told, 1.0)
    plain = there_and_back(old, new, np.zeros_like(told), 1.0)
    saved = np.log2(plain[1200:] + 1.0).mean() - np.log2(mixed[1200:] + 1.0).mean()
    assert saved > 3, "of five bits between a movement and what is each number's own"


def test_what_moved_on_its_own_is_not_mixed() -> None:
    old, new = together(48, 120, 0)
    assert not told_of(old, new).any()
    assert not told_of(old, old).any()


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e30])
def test_numbers_of_any_size(scale: float) -> None:
    old, new = together(24, 120, 2)
    old, new = old * np.float32(scale), new * np.float32(scale)
    told = told_of(old, new)
    assert np.abs(told).max() <= 127
    there_and_back(old, new, told, 1.0)
    part = Part("w", 0, old.shape, 4)
    choice = Chooser(old.tobytes(), new.tobytes(), []).based(part, part, (), [])
    item = Item(0, choice.tensor, part, None, choice.told)
    assert len(encode_delta(old.tobytes(), new.tobytes(), [item], [])) < 0.7 * old.nbytes


def test_rows_beyond_a_group_begin_anew() -> None:
    old, new = together(MAX_ROWS + 9, 50, 2)
    told = told_of(old, new)
    assert len(told) == told_count(MAX_ROWS + 9, 50) == told_count(MAX_ROWS, 50) + 45
    there_and_back(old, new, told, 1.0)


def test_a_network_trained_further(tmp_path: Path) -> None:
    random, before = np.random.default_rng(5), weights()
    shape = before["w2"].shape
    common = random.normal(size=(shape[0], 2)) @ random.normal(size=(2, before["w2"][0].size))
    own = random.normal(0, np.sqrt(2), shape)
    old = onnx_file(tmp_path / "old.onnx", before)
    sizes = []
    for move in (common.reshape(shape), own):
        after = {**before, "w2": (before["w2"] + 1e-3 * move).astype(np.float32)}
        new = onnx_file(tmp_path / "new.onnx", after)
        delta = DeltaBase(old).delta(new)
        assert delta is not None
        tensors = read_delta(delta, len(old), len(new)).instructions
        assert any(isinstance(each, Tensor) and each.rows for each in tensors) == (not sizes)
        sizes.append(len(delta))
    assert sizes[0] < 0.75 * sizes[1], sizes


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(Kind.FLOAT32, 8, 0, 0, rows=3),
        Tensor(Kind.FLOAT32, 8, 0, rows=2),
        Tensor(Kind.INT32, 8, 0, 0, rows=2),
        Tensor(Kind.FLOAT32, 1 << 18, 0, 0, rows=1),
        Tensor(Kind.FLOAT32, 1 << 18, 0, 0, rows=1 << 18),
    ],
)
def test_rows_that_cannot_be_mixed(tensor: Tensor) -> None:
    size = tensor.length + 4
    program = Program(size, size, 1, instructions=[tensor, Copy(0, 4)], coded=bytes(100))
    with pytest.raises(ContractError, match="bad-delta"):
        read_delta(write_delta(program), size, size)


def test_the_weights_of_a_tensor_are_bounded() -> None:
    assert told_count(1 << 18, 1) > MAX_TOLD
    assert told_count(5, 3) == 3 + 15


def test_quiet_columns_are_expected_to_be_quiet() -> None:
    """Three in four columns hardly change: interleaved, and yet cheap."""
    random = np.random.default_rng(6)
    old = random.normal(0, 0.1, (64, 160)).astype(np.float32)
    size = np.where(np.arange(160) % 4, 1e-7, 1e-3)
    new = (old + size * random.normal(size=old.shape)).astype(np.float32)
    base, target = old.tobytes(), new.tobytes()
    chooser = Chooser(base, target, [])
    part = Part("w", 0, (64, 160), 4)
    choice = chooser.based(part, part, (), [])
    assert choice.told is not None
    delta = encode_delta(base, target, [Item(0, choice.tensor, part, None, choice.told)], [])
    plain = encode_delta(base, target, [Item(0, Tensor(Kind.FLOAT32, old.size, 0, 0), part)], [])
    assert len(delta) < 0.92 * len(plain)
    pieces = apply_delta(delta, memoryview(base), len(target))
    assert b"".join(piece[1] for piece in pieces if piece is not None) == target


def test_a_factor_that_most_weights_agree_on() -> None:
    random = np.random.default_rng(7)
    old = random.normal(size=(3, 400))
    factor = np.array([[0.9], [1.2], [1.0]])
    new = old * factor + np.where(np.arange(400) < 300, 0, random.normal(0, 0.3, old.shape))
    new[2] += random.normal(0, 0.3, 400)
    fitted = fit(old, new, 400, 3)
    found = usual(old, new, 400, fitted)
    assert np.allclose(found[:2], factor[:2, 0], rtol=1e-9)
    assert found[2] == fitted[2], "none agree"
