"""Small real model files, written without an exporter: TFLite flatbuffers and ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper, numpy_helper


def write_onnx(
    path: Path,
    *,
    size_px: int = 8,
    channels: int = 3,
    batch: int | str = 1,
    layers: int = 1,
    metadata: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """``layers`` 3x3 convolutions with ReLU, (batch, channels, size, size) to 4 channels."""
    rng = np.random.default_rng(seed)
    nodes, weights, name, width = [], [], "x", channels
    for layer in range(layers):
        kernel = rng.normal(0, 0.3, (4, width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        conv = helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1] * 4)
        last = "y" if layer == layers - 1 else f"r{layer}"
        nodes += [conv, helper.make_node("Relu", [f"c{layer}"], [last])]
        name, width = last, 4
    shape = [batch, channels, size_px, size_px]
    return save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, size_px, size_px])],
        weights,
        metadata,
    )


def save_onnx(path, nodes, inputs, outputs, initializers=(), metadata=None) -> Path:
    """A graph as an ONNX file that current runtimes read."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def write_tflite(
    path: Path, *, shape: tuple[int, ...] = (1, 4, 4, 3), operator: str = "ADD", seed: int = 0
) -> Path:
    """One operator on float32 input ``x``.

    ``ADD`` adds a constant of the same shape; ``CONV_2D`` is a 3x3 convolution from and to the
    shape's last axis; ``WHERE`` gives the coordinates of non-zero elements, an output whose shape
    depends on the data.
    """
    kernel = (shape[-1], 3, 3, shape[-1]) if operator == "CONV_2D" else shape
    constant = np.random.default_rng(seed).normal(size=kernel).astype(np.float32)
    model = tfl.ModelT()
    model.version = 3
    model.buffers = [tfl.BufferT(), tfl.BufferT()]
    model.buffers[1].data = np.frombuffer(constant.tobytes(), np.uint8)
    graph = tfl.SubGraphT()
    graph.inputs, graph.outputs = [0], [2]
    graph.tensors = [
        _tensor("x", shape, tfl.TensorType.FLOAT32, 0),
        _tensor("constant", kernel, tfl.TensorType.FLOAT32, 1),
        _tensor("y", shape, tfl.TensorType.FLOAT32, 0),
    ]
    call = tfl.OperatorT()
    call.opcodeIndex, call.outputs = 0, [2]
    if operator == "ADD":
        call.inputs = [0, 1]
        call.builtinOptionsType = tfl.BuiltinOptions.AddOptions
        call.builtinOptions = tfl.AddOptionsT()
    elif operator == "CONV_2D":
        model.buffers.append(tfl.BufferT())
        model.buffers[2].data = np.zeros(shape[-1] * 4, np.uint8)
        graph.tensors.append(_tensor("bias", shape[-1:], tfl.TensorType.FLOAT32, 2))
        call.inputs = [0, 1, 3]
        call.builtinOptionsType = tfl.BuiltinOptions.Conv2DOptions
        call.builtinOptions = tfl.Conv2DOptionsT()
        call.builtinOptions.strideH = call.builtinOptions.strideW = 1
    else:
        call.inputs = [0]
        graph.tensors[2] = _tensor("y", (0, len(shape)), tfl.TensorType.INT64, 0)
        call.builtinOptionsType = tfl.BuiltinOptions.WhereOptions
        call.builtinOptions = tfl.WhereOptionsT()
    graph.operators = [call]
    model.subgraphs = [graph]
    code = tfl.OperatorCodeT()
    code.builtinCode = getattr(tfl.BuiltinOperator, operator)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1
    model.operatorCodes = [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def tflite_constant(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The constant that :func:`write_tflite` adds."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int) -> tfl.TensorT:
    tensor = tfl.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, buffer
    tensor.quantization = tfl.QuantizationParametersT()
    return tensor
