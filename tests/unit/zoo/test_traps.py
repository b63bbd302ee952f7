"""What the conversion libraries get wrong without saying so, held down one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from converters.inspect import inspect_model
from converters.loading import load_task
from converters.module import build_module, check_examples, contiguous
from converters.onnx_ends import parameters, quantize_ends
from converters.onnx_export import export_onnx
from converters.packing import pack, unpack
from converters.tflite_export import export_tflite
from edge_sdk.runtime.negotiate import open_engine
from tests.zoo import zoo

# The exporters use deprecated parts of torch; the product runs them in children without warnings.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


class Strided(nn.Module):
    """Parameter, buffer and attribute that lie in memory in another order than they read."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(16, 8).t())
        self.register_buffer("shift", torch.randn(16, 8).t())
        self.gain = torch.randn(16, 8).t()
        self.wide = torch.randn(1, 16).expand(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.scale + self.shift) * self.gain + self.wide


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_constants_that_are_not_contiguous_convert_right(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = contiguous(Strided().eval())
    tensors = (*module.parameters(), *module.buffers(), module.gain, module.wide)
    assert all(tensor.is_contiguous() for tensor in tensors)
    sample = torch.randn(1, 8, 16)
    path = tmp_path / f"strided.{kind}"
    (export_onnx if kind == "onnx" else export_tflite)(module, sample, path)
    engine = open_engine(path, format=kind)
    got = np.array(engine.run([sample.numpy()])[0])
    engine.close()
    assert np.abs(got - module(sample).numpy()).max() < 1e-5


@pytest.mark.parametrize("name", ["UNet", "SuperResolution"])
def test_upsampling_bakes_the_size_in_and_the_file_says_so(name: str, tmp_path: Path) -> None:
    """Each resolution is a file of its own whose declared shapes are the only ones it runs."""
    task = load_task(zoo()[name])
    module = build_module(task, None)
    for side in (16, 24):
        example = check_examples(task, module, side, side)
        path = tmp_path / f"{side}.tflite"
        export_tflite(module, example, path)
        facts = inspect_model(path)
        assert facts.inputs[0].shape == (1, side, side, 3)
        with torch.inference_mode():
            count, channels, height, width = module(*example).shape
        assert facts.outputs[0].shape == (count, height, width, channels)
        engine = open_engine(path, format="tflite")
        assert [spec.shape for spec in engine.outputs] == [facts.outputs[0].shape]
        engine.close()


def test_weights_shared_between_modules_convert(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    module = contiguous(nn.Sequential(first, nn.ReLU(), second).eval())
    sample = torch.randn(1, 8)
    for kind, export in (("onnx", export_onnx), ("tflite", export_tflite)):
        path = tmp_path / f"shared.{kind}"
        export(module, sample, path)
        engine = open_engine(path, format=kind)  # type: ignore[arg-type]
        got = np.array(engine.run([sample.numpy()])[0])
        engine.close()
        assert np.abs(got - module(sample).numpy()).max() < 1e-5


def test_several_arrays_travel_as_one_and_come_back() -> None:
    random = np.random.default_rng(0)
    arrays = [
        random.normal(size=(5, 3, 4, 4)).astype(np.float32),
        random.integers(0, 2**24, (5, 7)),
        random.normal(size=(5, 1, 2)).astype(np.float32),
    ]
    packed = pack(arrays)
    back = unpack(packed, [(1, *array.shape[1:]) for array in arrays])
    for one, other in zip(arrays, back, strict=True):
        assert np.array_equal(one, other)
    assert pack(arrays[:1]).shape == (5, 3, 4, 4)
    with pytest.raises(ValueError, match="do not make"):
        unpack(packed, [(1, 3)])


def test_ends_of_a_graph_become_integers_and_still_compute() -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Tanh", ["input"], ["output"])],
        "tanh",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 64))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, 64))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    quantize_ends(model, {"input": (-3.0, 3.0), "output": (-1.0, 1.0)}, "int8")
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 2
    session = onnxruntime.InferenceSession(model.SerializeToString())
    values = np.linspace(-3, 3, 64, dtype=np.float32)[None]
    (got,) = session.run(None, {"input": values})
    assert np.abs(got - np.tanh(values)).max() < 0.03


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("bounds", [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_zero_is_exact_in_every_range(dtype: str, bounds: tuple[float, float]) -> None:
    scale, zero = parameters(*bounds, dtype)
    info = np.iinfo(zero.dtype)
    assert info.min <= zero <= info.max
    assert scale > 0
    low, high = (info.min - int(zero)) * scale, (info.max - int(zero)) * scale
    assert low <= bounds[0] + scale
    assert high >= bounds[1] - scale


def test_integer_hard_swish_cuts_the_graph_and_kept_in_float_cuts_no_more(tmp_path: Path) -> None:
    """The partition count tells; leaving HARD_SWISH out of the scheme is allowed."""
    from converters.data import calibration_set
    from converters.layers import tflite_layers
    from converters.partitions import delegate_partitions
    from converters.settings import Settings
    from converters.tflite_quantize import quantize_tflite
    from converters.wiring import named_feeds

    task = load_task(zoo()["MobileNetV3"])
    module = build_module(task, None)
    source = tmp_path / "float.tflite"
    export_tflite(module, check_examples(task, module, 32, 32), source)
    samples = named_feeds(calibration_set(task, 32, 32), inspect_model(source).inputs, "tflite")
    quantize_tflite(source, "static_wi8_ai8", samples, tmp_path / "int8.tflite")
    hard = tuple(layer.name for layer in tflite_layers(source) if layer.op == "HARD_SWISH")
    assert hard
    kept = tmp_path / "kept.tflite"
    quantize_tflite(source, "static_wi8_ai8", samples, kept, Settings(keep=hard))
    assert delegate_partitions(source) == 1
    assert delegate_partitions(tmp_path / "int8.tflite") > 4
    assert delegate_partitions(kept) < delegate_partitions(tmp_path / "int8.tflite")
