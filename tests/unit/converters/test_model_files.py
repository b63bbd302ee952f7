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
from converters.fusion import steps_in
from converters.inspect import inspect_model, problems_with
from converters.metadata import read_notes
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
    tables = st.integers(0, min(8000, len(content) - 1))  # weights fill the rest
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(tables)] = data.draw(st.integers(0, 255))
    end = len(content) if data.draw(st.booleans()) else data.draw(st.integers(0, len(content)))
    (tmp_path / name).write_bytes(content[:end])
    for read in (inspect_model, steps_in, read_notes):
        try:
            read(tmp_path / name)
        except ConversionError as error:
            assert error.slug in ("unreadable-model", "unknown-format")


def external(path: Path, **data: str) -> Path:
    """A linear model whose weights are said to lie elsewhere."""
    model = onnx.load(str(linear(path, np.ones((4, 4)))))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in data.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["/etc/passwd", "../../etc/passwd", "link.bin", "none.bin"])
def test_weights_elsewhere_are_never_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    with pytest.raises(ConversionError) as caught:
        inspect_model(external(tmp_path / "a.onnx", location=location))
    assert caught.value.slug == "unreadable-model"
    assert location in caught.value.cause


def test_weights_beside_a_file_are_not_read_to_inspect_it(tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as sparse:
        sparse.truncate(1 << 40)
    path = external(tmp_path / "a.onnx", location="weights.bin")
    assert inspect_model(path).layers[0].weight_elements == 16
    assert steps_in(path).weighted == 1
    assert read_notes(path) is None


@pytest.mark.parametrize("where", ["weight", "input"])
def test_an_unknown_element_type_is_refused(tmp_path: Path, where: str) -> None:
    path = linear(tmp_path / "a.onnx", np.ones((4, 4)))
    model = onnx.load(str(path))
    if where == "weight":
        model.graph.initializer[0].data_type = 99
    else:
        model.graph.input[0].type.tensor_type.elem_type = 99
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match=r"unreadable-model.*element type 99"):
        inspect_model(path)


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
