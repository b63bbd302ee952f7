"""Both engines on real model files: right results, no copies, nothing corrupted."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import onnx.reference
import pytest
from onnx import TensorProto, helper

from edge_sdk.errors import RuntimeUnavailableError
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.models import save_onnx, tflite_constant, write_onnx, write_tflite

SHAPE = (1, 4, 4, 3)


@pytest.fixture
def tflite(tmp_path: Path):
    return open_engine(write_tflite(tmp_path / "add.tflite", shape=SHAPE), format="tflite")


@pytest.fixture
def recurrent(tmp_path: Path):
    """``next = state + x`` as ONNX: its output is its own next input."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1000])
        for name in ("state", "x", "next")
    ]
    add = helper.make_node("Add", ["state", "x"], ["next"])
    path = save_onnx(tmp_path / "state.onnx", [add], tensors[:2], tensors[2:])
    return open_engine(path, format="onnx")


def ones(value: float = 1.0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.full(shape, value, np.float32)


def test_litert_reports_what_it_loaded(tflite) -> None:
    assert (tflite.runtime, tflite.unit, tflite.kernels) == ("litert", "cpu", "xnnpack")
    (spec,) = tflite.inputs
    assert (spec.name, spec.dtype, spec.shape, spec.layout) == ("x", "float32", SHAPE, "NHWC")
    assert spec.scale is None


def test_litert_computes(tflite) -> None:
    (output,) = tflite.run([ones(2.0)])
    np.testing.assert_allclose(output, 2.0 + tflite_constant(SHAPE), rtol=1e-6)


def test_litert_outputs_are_views_that_the_next_run_overwrites(tflite) -> None:
    (first,) = tflite.run([ones(1.0)])
    kept = first.copy()
    (second,) = tflite.run([ones(5.0)])
    assert first is second, "the output was copied"
    np.testing.assert_allclose(second, kept + 4.0, rtol=1e-5)


def test_litert_runs_while_outputs_are_held(tflite) -> None:
    held = [tflite.run([ones(float(value))])[0] for value in range(20)]
    np.testing.assert_allclose(held[0], 19.0 + tflite_constant(SHAPE), rtol=1e-5)


def test_litert_input_buffer_is_read_in_place(tflite) -> None:
    buffer = tflite.input_buffer(0)
    for value in (3.0, 4.0):
        buffer[...] = value
        (output,) = tflite.run([buffer])
        np.testing.assert_allclose(output, value + tflite_constant(SHAPE), rtol=1e-6)


def test_litert_does_not_change_the_callers_array(tflite) -> None:
    mine = ones(7.0)
    tflite.run([mine])
    assert (mine == 7.0).all()


def test_litert_output_outlives_its_engine(tmp_path: Path) -> None:
    engine = open_engine(write_tflite(tmp_path / "m.tflite", shape=SHAPE), format="tflite")
    (output,) = engine.run([ones(1.0)])
    expected = output.copy()
    engine.close()
    del engine
    gc.collect()
    churn = [np.full(10_000, 9.0) for _ in range(50)]
    np.testing.assert_array_equal(output, expected)
    assert len(churn) == 50


def test_litert_two_engines_share_nothing(tmp_path: Path) -> None:
    path = write_tflite(tmp_path / "m.tflite", shape=SHAPE)
    one, two = (open_engine(path, format="tflite") for _ in range(2))
    (first,) = one.run([ones(1.0)])
    kept = first.copy()
    two.run([ones(50.0)])
    np.testing.assert_array_equal(first, kept)


def test_litert_output_of_dynamic_shape(tmp_path: Path) -> None:
    path = write_tflite(tmp_path / "where.tflite", shape=SHAPE, operator="WHERE")
    engine = open_engine(path, format="tflite")
    assert engine.run([ones(0.0)])[0].shape == (0, 4)
    assert engine.run([ones(1.0)])[0].shape == (48, 4)
    single = ones(0.0)
    single[0, 1, 2, 0] = 1.0
    (output,) = engine.run([single])
    assert output.tolist() == [[0, 1, 2, 0]]


def test_ort_computes_like_the_reference_evaluator(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", layers=3)
    engine = open_engine(path, format="onnx")
    assert (engine.runtime, engine.unit) == ("onnxruntime", "cpu")
    assert engine.inputs[0].layout == "NCHW"
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    (expected,) = onnx.reference.ReferenceEvaluator(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(engine.run([x])[0], expected, rtol=1e-4, atol=1e-5)


def test_ort_reads_a_fresh_array_each_time_and_sees_changes_in_place(recurrent) -> None:
    state, x = np.zeros((1, 1000), np.float32), np.ones((1, 1000), np.float32)
    assert recurrent.run([state, x])[0].max() == 1.0
    x[:] = 2.0  # same object, new content
    assert recurrent.run([state, x])[0].max() == 2.0
    assert recurrent.run([state, np.full((1, 1000), 3.0, np.float32)])[0].max() == 3.0


def test_ort_outputs_are_not_copied(recurrent) -> None:
    zero, one = np.zeros((1, 1000), np.float32), np.ones((1, 1000), np.float32)
    outputs = {id(recurrent.run([zero, one])[0]) for _ in range(10)}
    assert len(outputs) == 2, "two buffers should take turns"


def test_ort_state_can_be_fed_back(recurrent) -> None:
    state = np.zeros((1, 1000), np.float32)
    one = np.ones((1, 1000), np.float32)
    for step in range(1, 50):
        (state,) = recurrent.run([state, one])
        assert (state == step).all()


def test_litert_state_can_be_fed_back(tflite) -> None:
    state = ones(0.0)
    for _ in range(10):
        (state,) = tflite.run([state])
    np.testing.assert_allclose(state, 10 * tflite_constant(SHAPE), rtol=1e-4, atol=1e-5)


def test_ort_takes_strided_arrays(recurrent) -> None:
    wide = np.arange(2000, dtype=np.float32).reshape(1, 2000)
    zero = np.zeros((1, 1000), np.float32)
    for _ in range(2):  # a strided array must not stay bound
        assert (recurrent.run([wide[:, ::2], zero])[0] == wide[:, ::2]).all()
        wide += 1


def test_ort_input_buffer(recurrent) -> None:
    buffer = recurrent.input_buffer(1)
    assert buffer is recurrent.input_buffer(1)
    zero = np.zeros((1, 1000), np.float32)
    for value in (3.0, 4.0):
        buffer[...] = value
        assert (recurrent.run([zero, buffer])[0] == value).all()


def test_ort_batch_axis_may_be_free(tmp_path: Path) -> None:
    engine = open_engine(write_onnx(tmp_path / "m.onnx", batch="n"), format="onnx")
    assert engine.inputs[0].shape == (1, 3, 8, 8)
    (first,) = engine.run([np.ones((1, 3, 8, 8), np.float32)])
    kept = first.copy()
    engine.run([np.zeros((1, 3, 8, 8), np.float32)])
    np.testing.assert_array_equal(first, kept)  # unbound outputs are the caller's own


def test_ort_refuses_other_free_axes(tmp_path: Path) -> None:
    shape = [1, 3, "height", 8]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    path = save_onnx(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [x], [y])
    with pytest.raises(RuntimeUnavailableError, match="axis 2 \\(height\\) open") as caught:
        open_engine(path, format="onnx")
    assert caught.value.code == "runtime.model-rejected"


def test_ort_reads_layout_and_quantization_from_metadata(tmp_path: Path) -> None:
    note = {"layout": "NHWC", "scale": 0.5, "zero_point": -3}
    path = write_onnx(tmp_path / "m.onnx", metadata={"edge.tensor.x": json.dumps(note)})
    (spec,) = open_engine(path, format="onnx").inputs
    assert (spec.layout, spec.scale, spec.zero_point) == ("NHWC", 0.5, -3)


@pytest.mark.parametrize("text", ["{", "[]", '{"layout": "sideways"}'])
def test_ort_ignores_metadata_of_others(tmp_path: Path, text: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", metadata={"edge.tensor.x": text})
    assert open_engine(path, format="onnx").inputs[0].layout == "NCHW"


def test_ort_refuses_string_inputs(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [1])
    path = save_onnx(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], [x], [y])
    with pytest.raises(RuntimeUnavailableError, match="tensor\\(string\\)"):
        open_engine(path, format="onnx")


@pytest.mark.parametrize("format", ["tflite", "onnx"])
@pytest.mark.parametrize("fault", ["dtype", "shape", "count"])
def test_wrong_inputs_are_refused_not_cast(tmp_path: Path, format: str, fault: str) -> None:
    if format == "tflite":
        path, shape = write_tflite(tmp_path / "m.tflite", shape=SHAPE), SHAPE
    else:
        path, shape = write_onnx(tmp_path / "m.onnx"), (1, 3, 8, 8)
    engine = open_engine(path, format=format)
    inputs = {
        "dtype": [np.zeros(shape, np.uint8)],
        "shape": [np.zeros(shape[1:], np.float32)],
        "count": [],
    }[fault]
    with pytest.raises(RuntimeUnavailableError) as caught:
        engine.run(inputs)
    assert caught.value.code == "runtime.bad-input"


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_a_closed_engine_says_so(tmp_path: Path, format: str) -> None:
    write = write_tflite if format == "tflite" else write_onnx
    engine = open_engine(write(tmp_path / "m"), format=format)
    engine.close()
    engine.close()
    for call in (lambda: engine.run([]), lambda: engine.input_buffer(0)):
        with pytest.raises(RuntimeUnavailableError) as caught:
            call()
        assert caught.value.code == "runtime.closed"


def test_an_inference_that_fails_is_an_error_of_ours(tmp_path: Path) -> None:
    """Gather of an index out of range: the probing zeros pass, the caller's index does not."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    index = helper.make_tensor_value_info("i", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    gather = helper.make_node("Gather", ["table", "i"], ["y"])
    engine = open_engine(
        save_onnx(tmp_path / "m.onnx", [gather], [index], [y], [table]), format="onnx"
    )
    assert engine.run([np.array([2])])[0] == [3.0]
    with pytest.raises(RuntimeUnavailableError) as caught:
        engine.run([np.array([7])])
    assert caught.value.code == "runtime.inference-failed"
    assert engine.run([np.array([1])])[0] == [2.0]
