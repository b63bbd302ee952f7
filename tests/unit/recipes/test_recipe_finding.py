"""Finding recipes: what a prefix, a channel group or a new scale is recognised as."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.recipes.blocks import as_array, exact_blocks, near_block
from edge_sdk.recipes.build import build
from edge_sdk.recipes.find import Base
from edge_sdk.recipes.parts import Part, find_parts
from edge_sdk.recipes.program import Block, Literal, encode_recipe, open_recipe
from tests.fakes.models import save_onnx, write_onnx, write_tflite


def follow(recipe: bytes, base: bytes, size: int) -> bytes:
    target = bytearray(size)
    build(open_recipe(recipe, len(base), size), base, target)
    return bytes(target)


def blob_with(array: np.ndarray, before: int) -> tuple[bytes, Part]:
    data = bytes(before) + array.tobytes() + b"end"
    return data, Part("w", before, array.shape, array.itemsize)


SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(SHAPES, st.data(), st.sampled_from([np.int8, np.float32]), st.integers(0, 7))
def test_every_prefix_is_one_block(
    shape: list[int], data: st.DataObject, dtype: type, before: int
) -> None:
    """Bit-exact at any offset, alignment and rank."""
    rng = np.random.default_rng(1)
    whole = rng.integers(-128, 128, shape).astype(dtype)
    cut = tuple(slice(data.draw(st.integers(1, size))) for size in shape)
    wanted = np.ascontiguousarray(whole[cut])
    blob, part = blob_with(whole, before)
    found = exact_blocks(part, as_array(blob, part), _bytes(wanted))
    assert found is not None
    assert len(found) == 1
    recipe = encode_recipe(len(blob), found, b"")
    assert follow(recipe, blob, wanted.nbytes) == wanted.tobytes()


@given(st.integers(0, 2), st.data())
def test_channel_groups_along_one_axis(axis: int, data: st.DataObject) -> None:
    """Behind a concatenation a narrow layer keeps the first channels of every source."""
    whole = np.random.default_rng(2).normal(size=(12, 12, 3)).astype(np.float32)
    split = data.draw(st.integers(2, whole.shape[axis] - 1))
    left = data.draw(st.integers(1, split - 1))
    right = data.draw(st.integers(1, whole.shape[axis] - split))
    index = [*range(left), *range(split, split + right)]
    taken = whole.take(index, axis=axis)
    wanted = np.ascontiguousarray(taken[:, :, :2] if axis == 0 else taken[:5])
    blob, part = blob_with(whole, 5)
    found = exact_blocks(part, as_array(blob, part), _bytes(wanted))
    assert found is not None
    recipe = encode_recipe(len(blob), found, b"")
    assert follow(recipe, blob, wanted.nbytes) == wanted.tobytes()


def test_a_flattened_image_in_channels_last_order() -> None:
    """The linear layer behind 7x7 pixels of 8 channels keeps 3 of each pixel's."""
    whole = np.random.default_rng(3).normal(size=(10, 49 * 8)).astype(np.float32)
    wanted = np.ascontiguousarray(whole.reshape(10, 49, 8)[:, :, :3].reshape(10, -1))
    blob, part = blob_with(whole, 0)
    found = exact_blocks(part, as_array(blob, part), _bytes(wanted))
    assert found is not None
    (block,) = found
    assert len(block.segments) == 49
    recipe = encode_recipe(len(blob), found, b"")
    assert follow(recipe, blob, wanted.nbytes) == wanted.tobytes()


def test_strangers_are_no_part_of_each_other() -> None:
    rng = np.random.default_rng(4)
    blob, part = blob_with(rng.integers(-128, 128, (16, 8)).astype(np.int8), 0)
    other = rng.integers(-128, 128, (8, 8)).astype(np.int8)
    assert exact_blocks(part, as_array(blob, part), _bytes(other)) is None
    assert near_block(part, as_array(blob, part), _bytes(other)) is None
    assert exact_blocks(part, as_array(blob, part), _bytes(other.reshape(4, 4, 4))) is None
    larger = np.zeros((17, 8), np.int8)
    assert exact_blocks(part, as_array(blob, part), _bytes(larger)) is None


@pytest.mark.parametrize("axis", [0, 2])
def test_weights_quantized_anew_cost_a_fraction(axis: int) -> None:
    """A narrow width with scales of its own: exact, and far below its own size."""
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(64, 9, 64))
    whole = _quantized(weights, axis)
    wanted = _quantized(weights[:32, :, :32], axis)
    assert not np.array_equal(whole[:32, :, :32], wanted)
    blob, part = blob_with(whole, 3)
    near = near_block(part, as_array(blob, part), _bytes(wanted))
    assert near is not None
    recipe = encode_recipe(len(blob), [near[0]], near[1])
    assert follow(recipe, blob, wanted.nbytes) == wanted.tobytes()
    assert len(recipe) < 0.25 * wanted.nbytes


def _quantized(weights: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(each for each in range(weights.ndim) if each != axis)
    scale = np.abs(weights).max(others, keepdims=True) / 127
    return np.rint(weights / scale).astype(np.int8)


def _bytes(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    return array.view(np.uint8).reshape((*array.shape, array.itemsize))


@given(st.binary(max_size=300), st.binary(max_size=300), st.data())
@settings(max_examples=200)
def test_any_two_files_are_rebuilt_exactly(base: bytes, extra: bytes, data: st.DataObject) -> None:
    """Text edits between two files of no known format."""
    at = data.draw(st.integers(0, len(base)))
    target = base[at:] + extra + base[:at]
    recipe = Base(base).recipe(target)
    if recipe is not None:
        assert follow(recipe, base, len(target)) == target


def conv_net(path: Path, width: int, *, size_px: int = 16, scale: float = 1.0) -> bytes:
    """Two convolutions whose weights are a prefix of those of any wider one."""
    rng = np.random.default_rng(6)
    first = rng.normal(size=(32, 3, 3, 3)).astype(np.float32)[:width]
    second = rng.normal(size=(32, 32, 3, 3)).astype(np.float32)[:width, :width] * scale
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "w1"], ["y"], pads=[1] * 4),
    ]
    info = helper.make_tensor_value_info
    save_onnx(
        path,
        nodes,
        [info("x", TensorProto.FLOAT, [1, 3, size_px, size_px])],
        [info("y", TensorProto.FLOAT, [1, width, size_px, size_px])],
        [numpy_helper.from_array(w, n) for w, n in ((first, "w0"), (second, "w1"))],
        {"note": "a text that every width has in common, whatever else it has"},
    )
    return path.read_bytes()


@pytest.mark.parametrize("width", [24, 16, 8])
def test_a_narrow_onnx_file_is_a_few_hundred_bytes(tmp_path: Path, width: int) -> None:
    base, target = conv_net(tmp_path / "w", 32), conv_net(tmp_path / "n", width)
    recipe = Base(base).recipe(target)
    assert recipe is not None
    assert follow(recipe, base, len(target)) == target
    assert len(recipe) < 400


def test_another_resolution_is_next_to_nothing(tmp_path: Path) -> None:
    base, target = conv_net(tmp_path / "w", 32), conv_net(tmp_path / "n", 32, size_px=24)
    recipe = Base(base).recipe(target)
    assert recipe is not None
    assert follow(recipe, base, len(target)) == target
    assert len(recipe) < 200


def test_a_file_with_nothing_in_common_has_no_recipe() -> None:
    rng = np.random.default_rng(7)
    assert Base(rng.bytes(5000)).recipe(rng.bytes(5000)) is None


def test_parts_of_an_onnx_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", layers=3)
    data, found = path.read_bytes(), {}
    for part in find_parts(data):
        found[part.name] = as_array(data, part)
    expected = {
        each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer
    }
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes()
        assert found[name].shape == (*array.shape, 4)


def test_parts_of_a_tflite_file(tmp_path: Path) -> None:
    data = write_tflite(tmp_path / "m.tflite", operator="CONV_2D").read_bytes()
    (part,) = find_parts(data)
    assert (part.name, part.shape, part.itemsize) == ("0/constant", (3, 3, 3, 3), 4)
    expected = np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32)
    assert as_array(data, part).tobytes() == expected.tobytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_equal_members_of_two_archives_are_shared(save: object) -> None:
    rng, files = np.random.default_rng(8), []
    shared = rng.normal(size=(8, 3, 16, 16)).astype(np.float32)
    for _ in range(2):
        buffer = io.BytesIO()
        save(buffer, input=shared, output=rng.normal(size=(8, 10)).astype(np.float32))  # type: ignore[operator]
        files.append(buffer.getvalue())
    recipe = Base(files[0]).recipe(files[1])
    assert recipe is not None
    assert follow(recipe, files[0], len(files[1])) == files[1]
    assert len(recipe) < 800


@pytest.fixture(scope="module")
def real_files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("files")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(40, np.float32))
    onnx_file = write_onnx(folder / "m.onnx", layers=2).read_bytes()
    tflite_file = write_tflite(folder / "m.tflite", operator="CONV_2D").read_bytes()
    return [onnx_file, tflite_file, buffer.getvalue()]


@given(st.data())
@settings(max_examples=300)
def test_readers_survive_any_damage(real_files: list[bytes], data: st.DataObject) -> None:
    """A damaged model file has fewer parts, or wrong ones; they always lie inside the file."""
    file = bytearray(data.draw(st.sampled_from(real_files)))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    del file[data.draw(st.integers(0, len(file))) :]
    end = 0
    for part in find_parts(bytes(file)):
        assert part.offset >= end
        end = part.offset + part.length
    assert end <= len(file)


def test_a_recipe_may_be_all_literal() -> None:
    recipe = encode_recipe(0, [Literal(3)], b"abc")
    assert follow(recipe, b"", 3) == b"abc"
    assert Block(0, ((0, 3),)).length == 3
