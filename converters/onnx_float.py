"""ONNX rewrites that keep computing in floats: smaller weights, or half precision."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.errors import ConversionError

_FP16_MAX = 65504.0
_WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators with weights, and which input holds them."""
_FLOAT32_ALWAYS = (
    *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"),
    *("Softmax", "ReduceMean", "GlobalAveragePool", "Resize"),
)
"""Sums and exponentials overflow or lose their small terms in half precision."""


def half_weights(model: onnx.ModelProto, only: set[str] | None = None) -> onnx.ModelProto:
    """Weights (rank 2 and more) as float16, each followed by a Cast to float32.

    Args:
        model: changed in place.
        only: nodes whose weights are meant; all when None.

    Raises:
        ConversionError: ``conversion.quantize-failed`` when a weight exceeds float16.
    """
    meant = _constants_of(model, only)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        if meant is not None and tensor.name not in meant:
            continue
        values = _fits_half(tensor)
        name, half = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    return _prepended(model, casts)


def half_precision(
    model: onnx.ModelProto, keep: Iterable[str] = (), only: set[str] | None = None
) -> onnx.ModelProto:
    """Layers compute in float16; normalisation, softmax and ``keep`` stay in float32.

    Inputs and outputs stay float32. Where a processor has no float16 kernels, ONNX Runtime casts
    back and forth: this scheme is for GPUs and processors with half-precision arithmetic.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            _fits_half(tensor)
    blocked = set(keep)
    if only is not None:
        blocked |= {node.name for node in model.graph.node if node.name not in only}
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=list(_FLOAT32_ALWAYS),
        node_block_list=sorted(blocked),
    )
    sorted_model = ONNXModel(converted)
    sorted_model.topological_sort()  # the casts of inputs were appended at the end
    model = sorted_model.model
    del model.graph.value_info[:]  # the notes still speak of float32
    return model


def weight_only(
    model: onnx.ModelProto, only: set[str] | None = None, *, per_channel: bool = True
) -> onnx.ModelProto:
    """Weights of layers as int8 with a DequantizeLinear before the layer.

    Symmetric, the zero point 0. A constant that several nodes share is quantized once, along the
    axis its first user needs.

    Args:
        model: changed in place.
        only: nodes whose weights are meant; all when None.
        per_channel: one scale per output channel instead of one for all.
    """
    axes = _weight_axes(model, only)
    added: list[onnx.TensorProto] = []
    nodes = []
    for tensor in model.graph.initializer:
        if tensor.name not in axes or tensor.data_type != TensorProto.FLOAT:
            continue
        axis = axes[tensor.name] if per_channel else None
        stored, scale = _int8(numpy_helper.to_array(tensor), axis)
        name = tensor.name
        parts = [f"{name}.int8", f"{name}.scale", f"{name}.zero"]
        tensor.CopyFrom(numpy_helper.from_array(stored, parts[0]))
        added.append(numpy_helper.from_array(scale, parts[1]))
        added.append(numpy_helper.from_array(np.zeros(scale.shape, np.int8), parts[2]))
        node = helper.make_node("DequantizeLinear", parts, [name])
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        nodes.append(node)
    model.graph.initializer.extend(added)
    return _prepended(model, nodes)


def _int8(
    values: npt.NDArray[np.float32], axis: int | None
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    others = tuple(index for index in range(values.ndim) if index != axis)
    peak = np.abs(values).max(axis=None if axis is None else others, keepdims=axis is not None)
    scale = np.maximum(np.asarray(peak, np.float32) / np.float32(127), np.finfo(np.float32).tiny)
    stored = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    return stored, np.asarray(scale.reshape(-1) if axis is not None else scale, np.float32)


def _weight_axes(model: onnx.ModelProto, only: set[str] | None) -> dict[str, int]:
    """Output-channel axis of every weight, by the constant's name."""
    constants = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    axes: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED or (only is not None and node.name not in only):
            continue
        name = node.input[_WEIGHTED[node.op_type]]
        if constants.get(name, 0) >= 2:
            axes.setdefault(name, _axis(node, constants[name]))
    return axes


def _axis(node: onnx.NodeProto, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    return 0 if transposed else rank - 1


def _constants_of(model: onnx.ModelProto, only: set[str] | None) -> set[str] | None:
    if only is None:
        return None
    return {name for node in model.graph.node if node.name in only for name in node.input}


def _fits_half(tensor: onnx.TensorProto) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0.0) > _FP16_MAX:
        raise ConversionError(
            "quantize-failed",
            f"The weight {tensor.name} exceeds float16's range ({_FP16_MAX:.0f}).",
            "Leave wfp16 out (--schemes), or rescale that layer.",
        )
    return values


def _prepended(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    everything = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(everything)
    return model
