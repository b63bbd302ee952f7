"""Means over an image's height and width as global average pooling, which every runtime fuses.

The exporter writes ``x.mean((2, 3))`` and adaptive pooling to one pixel alike as ReduceMean. ONNX
Runtime has an integer kernel for GlobalAveragePool and none for ReduceMean, so an int8 file would
leave the integers in the middle; NPU compilers know the pooling better as well. The numbers are
the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

_SPATIAL = {2, 3}
_RANK = 4


def pool_spatial_means(model: onnx.ModelProto) -> int:
    """Rewrite ReduceMean over axes 2 and 3 of images (N, C, H, W); returns how many.

    Left alone are means over other axes or of other ranks, axes that are not in the file, and
    means that are subtracted: those belong to a normalisation, whose statistics a quantizer must
    not round to eight bits.

    Args:
        model: float or QDQ, opset 18 or newer, with its shape notes; changed in place.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    readers = readers_of(graph)
    nodes: list[onnx.NodeProto] = []
    found = 0
    for node in graph.node:
        if (
            node.op_type == "ReduceMean"
            and ranks.get(node.input[0]) == _RANK
            and _axes(node, constants) == _SPATIAL
            and all(reader.op_type != "Sub" for reader in readers.get(node.output[0], []))
        ):
            found += 1
            nodes += _pooling(node, readers.get(node.output[0], []), constants)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def readers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor; a node that reads one twice counts twice."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _axes(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> set[int]:
    """The axes counted from the front; empty when the file does not say."""
    if len(node.input) < 2 or node.input[1] not in constants:
        return set()
    axes = numpy_helper.to_array(constants[node.input[1]]).reshape(-1)
    return {int(axis) % _RANK for axis in axes}


def _pooling(
    node: onnx.NodeProto,
    readers: list[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """The pooling, and behind it what drops the two axes where the mean dropped them."""
    source, target = node.input[0], node.output[0]
    keeps = next((bool(item.i) for item in node.attribute if item.name == "keepdims"), True)
    if keeps:
        return [helper.make_node("GlobalAveragePool", [source], [target], name=node.name)]
    pooled = f"{target}.pooled"
    nodes = [helper.make_node("GlobalAveragePool", [source], [pooled], name=node.name)]
    quantizes = [reader.op_type for reader in readers] == ["QuantizeLinear"]
    if quantizes and all(name in constants for name in readers[0].input[1:]):
        # A file with its own Q/DQ: the pooling fuses only when the integers follow it directly.
        parameters = readers[0].input[1:]
        stored, real = f"{pooled}.stored", f"{pooled}.real"
        nodes += [
            helper.make_node("QuantizeLinear", [pooled, *parameters], [stored]),
            helper.make_node("DequantizeLinear", [stored, *parameters], [real]),
        ]
        pooled = real
    flat = helper.make_node("Flatten", [pooled], [target], name=f"{target}.flat", axis=1)
    return [*nodes, flat]
