"""Graphs written for faster kernels answer as before, and graphs they do not suit stay as they are.

Every comparison runs both graphs in ONNX Runtime.
"""

from __future__ import annotations

import copy
import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.onnx_pools import pool_spatial_means
from converters.onnx_quantize import quantize_onnx
from converters.onnx_stem import ease_stems, rewrites_in, rewrites_of

BOUNDED = settings(max_examples=40, deadline=None)
OPSET = [helper.make_opsetid("", 18)]


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, tuple[int, ...]]],
    outputs: dict[str, int],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, *inputs: np.ndarray, saved: Path | None = None) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


# ---- means ---------------------------------------------------------------------------------------


def mean_of(shape: tuple[int, ...], axes: list[int], keepdims: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["y"], name="mean", keepdims=keepdims),
    ]
    constants = {"axes": np.array(axes, np.int64)}
    return model_of(nodes, {"x": (TensorProto.FLOAT, shape)}, {"y": TensorProto.FLOAT}, constants)


@BOUNDED
@given(st.data())
def test_only_means_over_height_and_width_become_pooling(data: st.DataObject) -> None:
    rank = data.draw(st.integers(2, 5))
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank)))
    chosen = data.draw(st.sets(st.integers(0, rank - 1), min_size=1))
    axes = [axis - rank if data.draw(st.booleans()) else axis for axis in sorted(chosen)]
    model = mean_of(shape, axes, data.draw(st.integers(0, 1)))
    before = copy.deepcopy(model)
    changed = pool_spatial_means(model)
    assert changed == (rank == 4 and chosen == {2, 3})
    assert ("GlobalAveragePool" in ops(model)) == bool(changed)
    if not changed:
        assert model.SerializeToString() == before.SerializeToString()
    onnx.checker.check_model(model, full_check=True)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (expected,), (found,) = run(before, values), run(model, values)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_mean_that_is_subtracted_belongs_to_a_normalisation() -> None:
    model = mean_of((1, 3, 4, 4), [2, 3], 1)
    model.graph.node.append(helper.make_node("Sub", ["r", "y"], ["z"]))
    model.graph.output[0].name = "z"
    assert pool_spatial_means(model) == 0 and "ReduceMean" in ops(model)


@pytest.mark.parametrize("missing", ["axes", "shape"])
def test_what_the_file_does_not_say_is_not_guessed(missing: str) -> None:
    model = mean_of((1, 3, 4, 4), [2, 3], 0)
    if missing == "axes":
        del model.graph.initializer[:]
        model.graph.input.append(helper.make_tensor_value_info("axes", TensorProto.INT64, (2,)))
    else:
        del model.graph.value_info[:]
    assert pool_spatial_means(model) == 0 and "ReduceMean" in ops(model)


def test_the_pooling_of_a_file_with_its_own_integers_fuses(tmp_path: Path) -> None:
    """Quantization-aware training writes Q/DQ before this step: the integers follow the pooling."""
    scales = {"s": np.float32(0.05), "z": np.uint8(100), "s2": np.float32(0.02)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("QuantizeLinear", ["m", "s2", "z"], ["y"]),
    ]
    constants = {name: np.asarray(value) for name, value in scales.items()}
    constants["axes"] = np.array([2, 3], np.int64)
    shape = (1, 8, 7, 7)
    inputs = {"x": (TensorProto.UINT8, shape)}
    model = model_of(nodes, inputs, {"y": TensorProto.UINT8}, constants)
    before = copy.deepcopy(model)
    assert pool_spatial_means(model) == 1
    values = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    (expected,), (found,) = run(before, values), run(model, values, saved=tmp_path / "o.onnx")
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert "QLinearGlobalAveragePool" in ops(onnx.load(str(tmp_path / "o.onnx")))


# ---- first layers --------------------------------------------------------------------------------


def stem_of(
    dtype: str, channels: int, outputs: int, kernel: int, *, stride: int = 1, pad: int = 0
) -> onnx.ModelProto:
    """An integer input, one convolution and a second one behind it, as Q/DQ."""
    random = np.random.default_rng(channels * 100 + outputs)
    zero = np.array(3 if dtype == "int8" else 131, dtype)
    scale = (random.random(outputs) * 0.01 + 0.001).astype(np.float32)
    constants = {
        "s": np.array(0.02, np.float32),
        "z": zero,
        "s1": np.array(0.05, np.float32),
        "w": random.integers(-127, 127, (outputs, channels, kernel, kernel)).astype(np.int8),
        "ws": scale,
        "wz": np.zeros(outputs, np.int8),
        "v": random.integers(-127, 127, (4, outputs, 1, 1)).astype(np.int8),
        "vs": np.array(0.01, np.float32),
        "vz": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
        helper.make_node("Conv", ["xf", "wf"], ["a"], strides=[stride] * 2, pads=[pad] * 4),
        helper.make_node("QuantizeLinear", ["a", "s1", "z"], ["aq"]),
        helper.make_node("DequantizeLinear", ["aq", "s1", "z"], ["af"]),
        helper.make_node("DequantizeLinear", ["v", "vs", "vz"], ["vf"]),
        helper.make_node("Conv", ["af", "vf"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "s1", "z"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return model_of(nodes, {"x": (kind, (1, channels, 12, 12))}, {"y": kind}, constants)


def pixels(model: onnx.ModelProto) -> np.ndarray:
    value = model.graph.input[0].type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(value.elem_type)
    limits = np.iinfo(dtype)
    shape = [dim.dim_value for dim in value.shape.dim]
    return np.random.default_rng(2).integers(limits.min, limits.max, shape).astype(dtype)


@BOUNDED
@given(
    dtype=st.sampled_from(["int8", "uint8"]),
    channels=st.integers(1, 6),
    outputs=st.sampled_from([4, 15, 16, 24]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
)
def test_a_first_layer_answers_the_same_to_the_bit(
    dtype: str, channels: int, outputs: int, kernel: int, stride: int, pad: int
) -> None:
    model = stem_of(dtype, channels, outputs, kernel, stride=stride, pad=pad)
    before = copy.deepcopy(model)
    ease_stems(model)
    padded = dtype == "uint8" and channels == 3 and outputs >= 16
    again = dtype == "int8" and channels * kernel**2 >= 48
    assert ("Pad" in ops(model), "Reshape" in ops(model)) == (padded, again)
    assert len(rewrites_of(model)) == padded + again
    if not padded and not again:
        assert model.SerializeToString() == before.SerializeToString()
    onnx.checker.check_model(model)
    values = pixels(model)
    np.testing.assert_array_equal(run(model, values)[0], run(before, values)[0])


def second_reader(model: onnx.ModelProto) -> None:
    """The input is read by something else too."""
    model.graph.node.append(helper.make_node("Identity", ["x"], ["also"]))


def second_layer(model: onnx.ModelProto) -> None:
    """Two layers read the real input."""
    model.graph.node.append(helper.make_node("Conv", ["xf", "wf"], ["other"]))


def shared_weight(model: onnx.ModelProto) -> None:
    """Another node reads the weight's integers."""
    model.graph.node.append(helper.make_node("Identity", ["w"], ["also"]))


def shifted_weight(model: onnx.ModelProto) -> None:
    """Zero is not what the weight's zeros mean."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "wz")
    tensor.CopyFrom(numpy_helper.from_array(np.ones(16, np.int8), "wz"))


def not_a_convolution(model: onnx.ModelProto) -> None:
    """What reads the input has no weights."""
    for node in model.graph.node:
        if node.output[0] == "a":
            node.CopyFrom(helper.make_node("MaxPool", ["xf"], ["a"], kernel_shape=[2, 2]))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    "spoil", [second_reader, second_layer, shared_weight, shifted_weight, not_a_convolution]
)
def test_first_layers_that_do_not_suit_are_left_alone(dtype: str, spoil) -> None:  # type: ignore[no-untyped-def]
    model = stem_of(dtype, 3, 16, 5)
    spoil(model)
    before = model.SerializeToString()
    assert ease_stems(model).SerializeToString() == before


def test_a_first_layer_whose_answer_goes_two_ways_stays_as_it_is() -> None:
    """ONNX Runtime keeps such an answer signed, and the layer with it in float."""
    model = stem_of("int8", 3, 16, 5)
    model.graph.node.append(helper.make_node("DequantizeLinear", ["aq", "s1", "z"], ["also"]))
    before = model.SerializeToString()
    assert ease_stems(model).SerializeToString() == before


@pytest.mark.skipif(platform.machine() != "x86_64", reason="what ONNX Runtime does on x86 only")
def test_onnx_runtime_takes_the_integer_kernel_for_a_signed_first_layer(tmp_path: Path) -> None:
    found = {}
    for name, ease in (("before", False), ("after", True)):
        model = stem_of("int8", 3, 16, 7, stride=2, pad=3)
        if ease:
            ease_stems(model)
        run(model, pixels(model), saved=tmp_path / f"{name}.onnx")
        found[name] = ops(onnx.load(str(tmp_path / f"{name}.onnx"))).count("QLinearConv")
    assert found["after"] == found["before"] + 1


@pytest.mark.parametrize(
    ("scheme", "op"), [("static_wi8_ai8", "Reshape"), ("static_wi8_au8", "Pad")]
)
def test_a_quantized_file_says_what_was_rewritten(tmp_path: Path, scheme: str, op: str) -> None:
    random = np.random.default_rng(0)
    constants = {
        "w": random.normal(size=(16, 3, 5, 5)).astype(np.float32),
        "v": random.normal(size=(4, 16, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "v"], ["y"], name="second"),
    ]
    inputs = {"x": (TensorProto.FLOAT, (1, 3, 12, 12))}
    source, target = tmp_path / "float.onnx", tmp_path / "q.onnx"
    onnx.save(model_of(nodes, inputs, {"y": TensorProto.FLOAT}, constants), str(source))
    samples = random.normal(size=(4, 3, 12, 12)).astype(np.float32)
    quantize_onnx(source, scheme, [{"x": sample[None]} for sample in samples], target)
    assert op in ops(onnx.load(str(target)))
    assert set(rewrites_in([source, target])) == {"q.onnx"}
