"""Reading and rewriting model files that are not what they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.convert import Outcome
from converters.inspect import inspect_model, problems_with
from converters.onnx_quantize import integer_io, quantize_onnx
from converters.schemes import parse_scheme
from edge_sdk.errors import ConversionError

FLOAT = TensorProto.FLOAT


def linear(path: Path, weight: np.ndarray) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["output"])],
        "g",
        [helper.make_tensor_value_info("input", FLOAT, (1, weight.shape[0]))],
        [helper.make_tensor_value_info("output", FLOAT, (1, weight.shape[1]))],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(
    ("name", "content", "slug"),
    [
        ("a.onnx", b"", "unreadable-model"),
        ("a.onnx", b"\x08\x07garbage" * 9, "unreadable-model"),
        ("a.tflite", b"", "unknown-format"),
        ("a.tflite", b"1234TFL3" + b"\xff" * 64, "unreadable-model"),
        ("a.bin", b"whatever", "unknown-format"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, slug: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        inspect_model(tmp_path / name)
    assert caught.value.slug == slug


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"conversion\.file-missing"):
        inspect_model(tmp_path / "none.onnx")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_flipped_bytes_never_raise_anything_but_a_conversion_error(
    tiny_conversion: Outcome, tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["tiny-24x24-fp32.tflite", "tiny-24x24-fp32.onnx"]))
    content = bytearray((tiny_conversion.out / "artifacts" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        inspect_model(tmp_path / name)
    except ConversionError as error:
        assert error.slug in ("unreadable-model", "unknown-format")


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    source = linear(tmp_path / "m.onnx", np.array([[1.0, 1e6]]))
    with pytest.raises(ConversionError) as caught:
        quantize_onnx(source, "wfp16", np.zeros((1, 1), np.float32), tmp_path / "h.onnx")
    assert caught.value.code == "conversion.quantize-failed"
    assert "float16" in caught.value.cause
    assert not (tmp_path / "h.onnx").exists()


def test_a_graph_without_quantized_ends_is_left_alone_and_then_refused(tmp_path: Path) -> None:
    model = onnx.load(str(linear(tmp_path / "m.onnx", np.eye(3))))
    before = model.SerializeToString()
    assert integer_io(model).SerializeToString() == before
    problems = problems_with(inspect_model(tmp_path / "m.onnx"), parse_scheme("static_wi8_ai8"))
    assert any("input" in text for text in problems)
    assert any("weights" in text for text in problems)


def test_a_linear_layer_quantizes_statically_and_dynamically(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source = linear(tmp_path / "m.onnx", random.normal(size=(16, 4)))
    samples = random.normal(size=(32, 16)).astype(np.float32)
    for scheme in ("static_wi8_ai8", "dynamic_wi8_afp32", "wfp16"):
        target = tmp_path / f"{scheme}.onnx"
        quantize_onnx(source, scheme, samples, target)
        assert problems_with(inspect_model(target), parse_scheme(scheme)) == [], scheme
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["m.onnx", "static_wi8_ai8.onnx", "dynamic_wi8_afp32.onnx", "wfp16.onnx"]
    )


def test_an_operator_the_quantizer_skips_is_found(tmp_path: Path) -> None:
    """A float layer hidden in an otherwise quantized graph is a false claim."""
    random = np.random.default_rng(0)
    source = linear(tmp_path / "m.onnx", random.normal(size=(8, 8)))
    samples = random.normal(size=(8, 8)).astype(np.float32)
    quantize_onnx(source, "dynamic_wi8_afp32", samples, tmp_path / "d.onnx")
    model = onnx.load(str(tmp_path / "d.onnx"))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(8, dtype=np.float32), "extra"))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("MatMul", ["before", "extra"], ["output"]))
    onnx.save(model, str(tmp_path / "d.onnx"))
    problems = problems_with(inspect_model(tmp_path / "d.onnx"), parse_scheme("dynamic_wi8_afp32"))
    assert problems == ["MatMul 'extra' has float32 weights"]
