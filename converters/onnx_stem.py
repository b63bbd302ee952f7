"""The first layer of an integer ONNX file, written so that ONNX Runtime on x86 takes fast kernels.

Both rewrites leave every answer as it was, to the bit.

* **Unsigned activations** (``au8``): convolutions over three channels take the slow way through
  ``im2col``; over four they run directly. The image gets a fourth channel that holds the zero
  point, and the weights zeros for it.
* **Signed activations** (``ai8``): on x86 ONNX Runtime turns s8 into u8 while loading, but only
  between a QuantizeLinear and its DequantizeLinear. An input that is integer already has no
  QuantizeLinear, and the first layer would stay float. So the file quantizes the input once more,
  behind a Reshape to the shape it has: with nothing between them DequantizeLinear and
  QuantizeLinear would cancel out before that step. Elsewhere the three vanish while loading.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.onnx_pools import readers_of

REWRITES_KEY = "edge.rewrites"
"""In ``metadata_props``: JSON, a list of sentences."""
_CHANNELS, _PADDED = 3, 4
_RANK = 4
_LEAST_OUTPUTS = 16
"""Narrower first layers gain nothing from a fourth channel."""
_LEAST_PRODUCTS = 48
"""Per answer, from which integers beat floats in a first layer: 4 x 4 over three channels and more;
3 x 3 is faster in float."""


@dataclass(frozen=True, slots=True)
class _Stem:
    """An integer image input and the one convolution that reads it."""

    input: str
    shape: tuple[int, ...]
    dequantize: onnx.NodeProto
    layer: onnx.NodeProto


def ease_stems(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply what suits the inputs' element type, where a convolution alone reads them.

    Args:
        model: QDQ with integer inputs; changed in place. What was done is noted in its metadata.
    """
    done: list[str] = []
    for value in model.graph.input:
        stem = _stem_of(model.graph, value)
        if stem is None:
            continue
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            done += _pad(model.graph, stem)
        elif value.type.tensor_type.elem_type == onnx.TensorProto.INT8:
            done += _quantize_again(model.graph, stem)
    if done:
        entry = model.metadata_props.add()
        entry.key, entry.value = REWRITES_KEY, json.dumps(done)
    return model


def rewrites_in(paths: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """What was noted in each ONNX file that has such a note, by file name."""
    found = {
        path.name: rewrites_of(onnx.load(str(path), load_external_data=False)) for path in paths
    }
    return {name: done for name, done in found.items() if done}


def rewrites_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """What :func:`ease_stems` noted in a file."""
    for entry in model.metadata_props:
        if entry.key == REWRITES_KEY:
            return tuple(json.loads(entry.value))
    return ()


def _stem_of(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> _Stem | None:
    shape = tuple(int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
    readers, outputs = readers_of(graph), {output.name for output in graph.output}
    first = readers.get(value.name, [])
    if len(shape) != _RANK or 0 in shape[1:] or [n.op_type for n in first] != ["DequantizeLinear"]:
        return None
    dequantize = first[0]
    parameters = [tensor for tensor in graph.initializer if tensor.name in dequantize.input[1:]]
    per_tensor = len(parameters) == 2 and all(not tensor.dims for tensor in parameters)
    real = dequantize.output[0]
    layers = readers.get(real, [])
    if not per_tensor or real in outputs or [node.op_type for node in layers] != ["Conv"]:
        return None
    return _Stem(value.name, shape, dequantize, layers[0])


def _pad(graph: onnx.GraphProto, stem: _Stem) -> list[str]:
    """A fourth channel for a convolution over three."""
    weight = _own_weight(graph, stem.layer)
    if weight is None or stem.shape[1] != _CHANNELS:
        return []
    values = numpy_helper.to_array(weight)
    if values.dtype != np.int8 or values.shape[1] != _CHANNELS:
        return []
    if values.shape[0] < _LEAST_OUTPUTS:
        return []
    wider = np.zeros((values.shape[0], _PADDED, *values.shape[2:]), np.int8)
    wider[:, :_CHANNELS] = values
    weight.CopyFrom(numpy_helper.from_array(wider, weight.name))
    pads, padded = f"{stem.input}.pads", f"{stem.input}.padded"
    amounts = np.array([0, 0, 0, 0, 0, _PADDED - _CHANNELS, 0, 0], np.int64)
    graph.initializer.append(numpy_helper.from_array(amounts, pads))
    source = [stem.input, pads, stem.dequantize.input[2]]
    stem.dequantize.input[0] = padded
    _prepend(graph, [helper.make_node("Pad", source, [padded], name=padded)])
    _forget_shapes(graph, {stem.dequantize.output[0], stem.layer.input[1]})
    note = f"padded from {_CHANNELS} to {_PADDED} channels for the direct convolution kernel"
    return [f"{stem.input}: {note}"]


def _own_weight(graph: onnx.GraphProto, layer: onnx.NodeProto) -> onnx.TensorProto | None:
    """The integers of a convolution's weights, when nothing else reads them and 0 means zero."""
    readers = readers_of(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = [node for node in graph.node if layer.input[1] in node.output]
    if [node.op_type for node in made] != ["DequantizeLinear"]:
        return None
    stored, scale, *zeros = made[0].input
    alone = len(readers[layer.input[1]]) == 1 and len(readers[stored]) == 1
    if not alone or scale not in constants or not all(name in constants for name in zeros):
        return None
    if any(numpy_helper.to_array(constants[name]).any() for name in zeros):
        return None
    # Without an axis ONNX means the second one, which is the one that grows.
    axis = next((item.i for item in made[0].attribute if item.name == "axis"), 1)
    return constants.get(stored) if axis == 0 or not constants[scale].dims else None


def _quantize_again(graph: onnx.GraphProto, stem: _Stem) -> list[str]:
    """A pair of its own for the input, where the layer behind it can use one and gains."""
    weight = _own_weight(graph, stem.layer)
    if weight is None or int(np.prod(weight.dims[1:])) < _LEAST_PRODUCTS:
        return []
    readers, outputs = readers_of(graph), {output.name for output in graph.output}
    answer = readers.get(stem.layer.output[0], [])
    if [node.op_type for node in answer] != ["QuantizeLinear"]:
        return []
    if answer[0].output[0] in outputs or len(readers.get(answer[0].output[0], [])) != 1:
        return []  # its answer stays signed, so the layer would compute in float anyway
    names = [f"{stem.input}.{part}" for part in ("real", "same", "shape", "again")]
    real, same, shape, again = names
    # A zero copies the input's own size.
    graph.initializer.append(numpy_helper.from_array(np.zeros(_RANK, np.int64), shape))
    parameters = stem.dequantize.input[1:]
    stem.dequantize.input[0] = again
    _prepend(
        graph,
        [
            helper.make_node("DequantizeLinear", [stem.input, *parameters], [real], name=real),
            helper.make_node("Reshape", [real, shape], [same], name=same),
            helper.make_node("QuantizeLinear", [same, *parameters], [again], name=again),
        ],
    )
    return [f"{stem.input}: quantized once more, for the integer kernel of the first layer on x86"]


def _prepend(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    everything = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(everything)


def _forget_shapes(graph: onnx.GraphProto, names: set[str]) -> None:
    kept = [value for value in graph.value_info if value.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)
