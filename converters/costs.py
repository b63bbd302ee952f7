"""What a network costs to run: fused layers with their arithmetic and traffic.

Read off the float ONNX graph after shape inference, because it names every tensor's shape.
A convolution is fused with the BatchNorm, activation and residual addition that follow it, as the
runtimes do; reshapes cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from onnx import shape_inference

from converters.schemes import Scheme
from device_profiles.latency import LayerCost

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_FUSED = {"BatchNormalization", "Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Add", "Mul"} | {
    "HardSigmoid",
    "Sigmoid",
}
_FREE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Dropout", "Shape"}


@dataclass(frozen=True, slots=True)
class LayerSize:
    """A fused layer before an element size is chosen."""

    kind: Literal["dense", "pointwise", "depthwise", "memory"]
    macs: int
    weights: int
    """Elements of weights and biases."""
    activations: int
    """Elements read and written."""


def layer_sizes(path: Path) -> list[LayerSize]:
    """The fused layers of a float ONNX file with static shapes, in graph order."""
    model = shape_inference.infer_shapes(onnx.load(str(path)))
    return _Walk(model.graph).layers()


def layer_costs(sizes: list[LayerSize], scheme: Scheme) -> list[LayerCost]:
    """Costs at a scheme's element sizes.

    float16 weights are expanded when the file is loaded, so they travel as float32.
    """
    weight = scheme.weight_bits // 8 if scheme.integer_weights else 4
    activation = scheme.activation_bits // 8 if scheme.integer_activations else 4
    return [
        LayerCost(size.kind, size.macs, size.weights * weight + size.activations * activation)
        for size in sizes
    ]


def split_floats(
    sizes: Sequence[LayerSize], floats: Sequence[bool]
) -> tuple[list[LayerSize], list[LayerSize]]:
    """Layers in integers and layers in float32.

    Args:
        sizes: in graph order. Those without weights go with the layer before them.
        floats: of each layer with weights; where there are more or fewer, all are integers.
    """
    parts: tuple[list[LayerSize], list[LayerSize]] = ([], [])
    if len(floats) != sum(size.kind != "memory" for size in sizes):
        return list(sizes), []
    left, now = iter(floats), bool(floats and floats[0])
    for size in sizes:
        now = now if size.kind == "memory" else next(left)
        parts[now].append(size)
    return parts


def total_macs(sizes: list[LayerSize]) -> int:
    """Multiply-accumulates of one inference."""
    return sum(size.macs for size in sizes)


class _Walk:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._shapes = dict(self._constants)
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = value.type.tensor_type.shape.dim
            self._shapes[value.name] = tuple(max(1, int(dim.dim_value)) for dim in dims)
        self._readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1

    def layers(self) -> list[LayerSize]:
        found: list[LayerSize] = []
        fused: set[str] = set()
        """Outputs that leave a weighted layer and may still take in the next operator."""
        for node in self._graph.node:
            if node.op_type in _FREE or all(name in self._constants for name in node.input):
                self._pass_on(node, fused)
            elif node.op_type in _WEIGHTED:
                found.append(self._weighted(node))
                fused.add(node.output[0])
            elif self._fuses(node, fused):
                fused.add(node.output[0])
            else:
                found.append(LayerSize("memory", 0, 0, self._traffic(node)))
        return found

    def _pass_on(self, node: onnx.NodeProto, fused: set[str]) -> None:
        if node.input and node.input[0] in fused:
            fused.update(node.output)

    def _fuses(self, node: onnx.NodeProto, fused: set[str]) -> bool:
        """Whether an operator disappears into the weighted layer before it."""
        return node.op_type in _FUSED and any(
            name in fused and self._readers.get(name, 0) <= 2 for name in node.input
        )

    def _weighted(self, node: onnx.NodeProto) -> LayerSize:
        output = math.prod(self._shapes.get(node.output[0], (1,)))
        weight = self._shapes.get(node.input[1], (1,))
        weights = sum(math.prod(self._constants.get(name, (0,))) for name in node.input)
        if node.op_type in ("Conv", "ConvTranspose"):
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            if node.op_type == "ConvTranspose":
                macs = math.prod(self._shapes.get(node.input[0], (1,))) * math.prod(weight[1:])
                kind: Literal["dense", "pointwise", "depthwise"] = "dense"
            else:
                macs = output * math.prod(weight[1:])
                single = groups == 1 and math.prod(weight[2:]) == 1
                kind = "pointwise" if single else "dense"
                kind = "depthwise" if groups > 1 and weight[1] == 1 else kind
            return LayerSize(kind, macs, weights, self._traffic(node))
        inner = self._shapes.get(node.input[0], (1,))[-1]
        return LayerSize("pointwise", output * inner, weights, self._traffic(node))

    def _traffic(self, node: onnx.NodeProto) -> int:
        names = [*node.output, *(name for name in node.input if name not in self._constants)]
        return sum(math.prod(self._shapes.get(name, (0,))) for name in names if name)
