"""Integers at both ends of a QDQ graph, also where the quantizer left an end in float.

onnxruntime.quantization skips operators without an integer kernel (Tanh, DepthToSpace, GRU). Where
one of them reads an input or makes an output, that end stays float. Here it gets a pair of
QuantizeLinear and DequantizeLinear of its own; whether the layers with weights are integers is the
claim check's business.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def quantize_ends(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], dtype: str
) -> onnx.ModelProto:
    """Add what the quantizer left out at the float inputs and outputs.

    Args:
        model: QDQ graph; changed in place.
        ranges: (low, high) by tensor name; an end without one is left alone.
        dtype: ``int8``, ``uint8`` or ``int16``.
    """
    graph = model.graph
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        done = [node.op_type for node in readers] == ["QuantizeLinear"]
        if not done and readers and _is_float(value) and value.name in ranges:
            real = f"{value.name}.real"
            for node in readers:
                node.input[:] = [real if name == value.name else name for name in node.input]
            _pair(graph, value.name, real, ranges[value.name], dtype, first=True)
    for value in graph.output:
        maker = next((node for node in graph.node if value.name in node.output), None)
        if maker is None or maker.op_type == "DequantizeLinear" or not _is_float(value):
            continue
        if value.name in ranges:
            plain = f"{value.name}.float"
            for node in graph.node:
                node.input[:] = [plain if name == value.name else name for name in node.input]
            maker.output[:] = [plain if name == value.name else name for name in maker.output]
            _pair(graph, plain, value.name, ranges[value.name], dtype, first=False)
    return model


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)


def _pair(
    graph: onnx.GraphProto,
    source: str,
    target: str,
    bounds: tuple[float, float],
    dtype: str,
    *,
    first: bool,
) -> None:
    scale, zero_point = parameters(*bounds, dtype)
    names = [f"{target}.end_scale", f"{target}.end_zero_point"]
    for name, array in zip(names, (scale, zero_point), strict=True):
        graph.initializer.append(numpy_helper.from_array(array, name))
    stored = f"{target}.stored"
    pair = [
        helper.make_node("QuantizeLinear", [source, *names], [stored], name=f"{target}.quantize"),
        helper.make_node("DequantizeLinear", [stored, *names], [target], name=f"{target}.real"),
    ]
    nodes = [*pair, *graph.node] if first else [*graph.node, *pair]
    del graph.node[:]
    graph.node.extend(nodes)


def parameters(low: float, high: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale (float32 scalar) and zero point of a range that includes zero.

    To the last bit those of ``onnxruntime.quantization``, so that a streaming state whose one end
    the quantizer left to us has the same at the other.
    """
    info = np.iinfo(dtype)
    low, high = min(float(np.float32(low)), 0.0), max(float(np.float32(high)), 0.0)
    scale = (high - low) / (info.max - info.min) or 1.0
    zero = int(np.clip(round(info.min - low / scale), info.min, info.max))
    return np.array(scale, np.float32), np.array(zero, dtype)
