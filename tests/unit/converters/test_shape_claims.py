"""Files that claim to take any size: no artifact repeats the claim, and a false one is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper, numpy_helper

from converters.convert import Outcome
from converters.importing import ImportOptions, import_model
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.models import save_onnx, write_onnx, write_tflite

FLOAT = TensorProto.FLOAT


def opened(path: Path) -> Path:
    """A TFLite file that says its input's height and width may be anything."""
    model = tfl.ModelT.InitFromObj(tfl.Model.GetRootAs(path.read_bytes(), 0))
    for tensor in (model.subgraphs[0].tensors[0], model.subgraphs[0].tensors[2]):
        tensor.shapeSignature = [1, -1, -1, 3]
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def flat_onnx(path: Path) -> Path:
    """Says any size, but its last layer only fits 8x8."""
    value = helper.make_tensor_value_info
    weight = np.random.default_rng(0).normal(size=(192, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    inputs, outputs = [value("x", FLOAT, [1, 3, "h", "w_"])], [value("y", FLOAT, [1, 2])]
    return save_onnx(path, nodes, inputs, outputs, [numpy_helper.from_array(weight, "w")])


def open_onnx(path: Path) -> Path:
    """Says any size, and a convolution keeps the word."""
    write_onnx(path)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "h"
        value.type.tensor_type.shape.dim[3].dim_param = "w"
    onnx.save(model, str(path))
    return path


FALSE = {
    "onnx": flat_onnx,
    "tflite": lambda path: opened(write_tflite(path, shape=(1, 8, 8, 3))),  # adds 8x8 constants
}
TRUE = {
    "onnx": open_onnx,
    "tflite": lambda path: opened(write_tflite(path, shape=(1, 8, 8, 3), operator="CONV_2D")),
}
PROFILE = {"onnx": "jetson-orin-nano", "tflite": "rpi4"}


def shape_of(kind: str, side: int) -> dict[str, tuple[int, ...]]:
    return {"": (1, 3, side, side) if kind == "onnx" else (1, side, side, 3)}


def taken_in(kind: str, source: Path, out: Path, side: int) -> Outcome:
    options = ImportOptions(shapes=shape_of(kind, side), schemes=("wfp16",))
    return import_model(source, [PROFILE[kind]], out, options=options).outcome


def open_axes(path: Path) -> list[str]:
    """Tensors that a file says may have any size."""
    if path.suffix == ".onnx":
        graph = onnx.load(str(path)).graph
        values = (*graph.input, *graph.output)
        return [v.name for v in values for d in v.type.tensor_type.shape.dim if d.dim_value < 1]
    graph = tfl.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    tensor = graph.Tensors(graph.Inputs(0))  # the interpreter works out all others from it
    signature = [tensor.ShapeSignature(axis) for axis in range(tensor.ShapeSignatureLength())]
    return [tensor.Name().decode()] if any(size < 1 for size in signature) else []


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_false_claim_is_refused_at_the_size_that_breaks_it(kind: str, tmp_path: Path) -> None:
    source = FALSE[kind](tmp_path / f"m.{kind}")
    with pytest.raises(ConversionError) as caught:
        taken_in(kind, source, tmp_path / "out", 12)
    assert caught.value.slug in ("not-runnable", "unreadable-model"), caught.value
    assert source.name in caught.value.cause and caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_true_claim_becomes_the_size_that_was_asked_for(kind: str, tmp_path: Path) -> None:
    """The same answers as the file itself gives when it is resized at run time."""
    source, side = TRUE[kind](tmp_path / f"m.{kind}"), 12
    outcome = taken_in(kind, source, tmp_path / "out", side)
    for item in outcome.measured:
        path = outcome.out / "artifacts" / item.path.name
        assert item.inputs[0].shape[2 if kind == "onnx" else 1] == side
        assert open_axes(path) == []
    plain = next(item for item in outcome.measured if item.scheme == "fp32")
    shape = shape_of(kind, side)[""]
    sample = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    engine = open_engine(outcome.out / "artifacts" / plain.path.name, format=kind)
    got = np.array(engine.run([sample])[0])
    engine.close()
    np.testing.assert_allclose(got, resized(source, sample), rtol=1e-4, atol=1e-5)


def resized(source: Path, sample: np.ndarray) -> np.ndarray:
    """The untouched file's answer at the sample's size, by the plain library."""
    if source.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": sample})[0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(source))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, sample.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, sample)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_our_own_files_claim_one_size(tiny_conversion: Outcome) -> None:
    for item in tiny_conversion.measured:
        assert open_axes(tiny_conversion.out / "artifacts" / item.path.name) == []
