"""From a float module to one that trains on the int8 grid (torch.fx).

Every float tensor gets an :class:`~converters.qat.ranges.ActivationRange`, except between a layer
and the activation that runtimes fuse into it. Operators that only move values share the range of
their input, and all inputs of a concatenation share one with its output, as int8 kernels demand.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.nn import functional as F

from converters.qat.layers import BATCH_NORMS, QuantizedLayer
from converters.qat.planes import widen
from converters.qat.ranges import ActivationRange, Phase
from converters.qat.refusals import refuse_repeated, refuse_shared_weights, refuse_unsupported
from converters.qat.traced import module_of
from converters.usercode import first_line
from edge_sdk.errors import ConversionError

_WEIGHTED = (nn.Conv2d, nn.Linear)
_FUSED_MODULES = (nn.ReLU, nn.ReLU6)
_FUSED_CALLS = (F.relu, F.relu6, torch.relu, "relu", "relu_")
_FUSES_INTO = (operator.add, operator.iadd, torch.add, "add", "add_")
_SAME_MODULES = (nn.MaxPool2d, nn.AvgPool2d, nn.Flatten, nn.PixelShuffle, nn.ZeroPad2d, nn.Upsample)
_SAME_CALLS = frozenset({
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze,
    torch.chunk, torch.split, torch.cat, torch.concat, torch.stack, operator.getitem,
    torch.max_pool2d, F.max_pool2d, F.avg_pool2d, F.pad, F.interpolate, F.pixel_shuffle,
    "flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split",
    "contiguous", "max_pool2d",
})  # fmt: skip
_PASSING_MODULES = (nn.Dropout, nn.Dropout2d, nn.Identity)
_PASSING_CALLS = (F.dropout, F.dropout2d)
_SQUASHED = (1 / 256, -128)
"""Scale and zero point that TFLite prescribes for outputs within 0..1."""
_FIXED_MODULES = {
    nn.Sigmoid: _SQUASHED, nn.Softmax: _SQUASHED, nn.Tanh: (1 / 128, 0), nn.Hardsigmoid: _SQUASHED
}  # fmt: skip
_FIXED_CALLS: dict[Any, tuple[float, int]] = {
    torch.sigmoid: _SQUASHED, F.sigmoid: _SQUASHED, "sigmoid": _SQUASHED,
    torch.softmax: _SQUASHED, F.softmax: _SQUASHED, "softmax": _SQUASHED,
    torch.tanh: (1 / 128, 0), F.tanh: (1 / 128, 0), "tanh": (1 / 128, 0),
    F.hardsigmoid: _SQUASHED,
}  # fmt: skip


def prepare(module: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    """Rewrite a float module for training on the int8 grid.

    Args:
        module: in evaluation mode; its parameters become the result's (those of Conv1d as copies).
        example: (1, C, H, W) float32.

    Returns:
        A module of the same answers whose ranges are in phase ``observe``.

    Raises:
        TaskError: ``task.shared-weights``.
        ConversionError: ``conversion.qat-untraceable``, ``conversion.qat-unsupported``.
    """
    refuse_shared_weights(module)
    graph = _traced(module, example)
    refuse_repeated(graph)
    widen(graph)
    refuse_unsupported(graph)
    ShapeProp(graph).propagate(example)
    _wrap_layers(graph)
    _insert_ranges(graph)
    graph.graph.lint()
    graph.recompile()
    return graph


def _traced(module: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    """The module as a graph whose nodes know their shapes."""
    try:
        graph = fx.symbolic_trace(module)
        _split_silu(graph)
        ShapeProp(graph).propagate(example)
    except Exception as error:
        raise ConversionError(
            "qat-untraceable",
            f"{type(module).__name__} cannot be traced for quantization-aware training: "
            f"{first_line(error)}",
            "Control flow must not depend on values; convert it with calibration instead "
            "(edge model convert).",
        ) from error
    return graph


def ranges_of(graph: nn.Module) -> Iterator[tuple[str, ActivationRange]]:
    """Every activation range once, with its name."""
    for name, part in graph.named_modules():
        if isinstance(part, ActivationRange):
            yield name, part


def layers_of(graph: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    """Every layer with weights, with its name in the user's module."""
    for name, part in graph.named_modules():
        if isinstance(part, QuantizedLayer):
            yield name, part


def enter(graph: nn.Module, phase: Phase) -> None:
    """Take all ranges and layers to another phase."""
    for _, part in ranges_of(graph):
        part.enter(phase)
    for _, layer in layers_of(graph):
        layer.phase = phase


def input_scale(graph: fx.GraphModule, name: str) -> torch.Tensor:
    """() the scale of the input of the layer ``name``."""
    node = next(n for n in graph.graph.nodes if n.op == "call_module" and n.target == name)
    while node.args:
        node = node.args[0]
        part = module_of(graph, node)
        if isinstance(part, ActivationRange):
            return part.scale
    raise ConversionError(  # _insert_ranges puts a range behind every float tensor
        "qat-unsupported", f"The input of {name!r} has no range.", "Report it with the module."
    )


def _split_silu(graph: fx.GraphModule) -> None:
    """SiLU as a product with a sigmoid: both formats compute it so."""
    for node in list(graph.graph.nodes):
        if isinstance(module_of(graph, node), nn.SiLU) or node.target is F.silu:
            source = node.args[0]
            with graph.graph.inserting_before(node):
                gate = graph.graph.call_function(torch.sigmoid, (source,))
                product = graph.graph.call_function(torch.mul, (source, gate))
            node.replace_all_uses_with(product)
            graph.graph.erase_node(node)
    graph.recompile()


def _wrap_layers(graph: fx.GraphModule) -> None:
    """Put layers, each with the BatchNorm behind it, into :class:`QuantizedLayer`."""
    for node in list(graph.graph.nodes):
        part = module_of(graph, node)
        if isinstance(part, _WEIGHTED):
            norm = _norm_behind(graph, node)
            graph.set_submodule(node.target, QuantizedLayer(part, module_of(graph, norm)))
            if norm is not None:
                norm.replace_all_uses_with(node)
                graph.graph.erase_node(norm)
        elif isinstance(part, nn.BatchNorm2d):  # none in front: a depthwise 1x1 of ones
            channels = part.num_features
            unit = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
            nn.init.ones_(unit.weight)
            graph.set_submodule(node.target, QuantizedLayer(unit, part))
    graph.delete_all_unused_submodules()


def _norm_behind(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    alone = len(users) == 1 and isinstance(module_of(graph, users[0]), BATCH_NORMS)
    return users[0] if alone else None


def _insert_ranges(graph: fx.GraphModule) -> None:
    """A range behind every float tensor that a runtime materialises."""
    groups = _Groups()
    nodes = list(graph.graph.nodes)
    for node in nodes:
        if _keeps_scale(graph, node):
            for source in node.all_input_nodes:
                groups.unite(source, node)
    ranges: dict[fx.Node, str] = {}
    for node in nodes:
        if not _is_float(node) or _fused_into_user(graph, node) or _passes(graph, node):
            continue
        name = ranges.get(groups.find(node))
        if name is None:
            name = ranges[groups.find(node)] = f"range_{node.name}"
            graph.add_submodule(name, ActivationRange(_fixed(graph, node)))
        with graph.graph.inserting_after(node):
            quantized = graph.graph.call_module(name, (node,))
        node.replace_all_uses_with(
            quantized, delete_user_cb=lambda user, q=quantized: user is not q
        )


class _Groups:
    """Nodes that must share one range (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[fx.Node, fx.Node] = {}

    def find(self, node: fx.Node) -> fx.Node:
        while (parent := self._parent.get(node, node)) is not node:
            node = parent
        return node

    def unite(self, one: fx.Node, other: fx.Node) -> None:
        self._parent[self.find(other)] = self.find(one)


def _is_float(node: fx.Node) -> bool:
    meta = node.meta.get("tensor_meta")
    return node.op != "output" and isinstance(meta, TensorMetadata) and meta.dtype.is_floating_point


def _keeps_scale(graph: fx.GraphModule, node: fx.Node) -> bool:
    return _is(graph, node, _SAME_MODULES, _SAME_CALLS) or _passes(graph, node)


def _passes(graph: fx.GraphModule, node: fx.Node) -> bool:
    return _is(graph, node, _PASSING_MODULES, _PASSING_CALLS)


def _fused_into_user(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether runtimes fuse the only user, an activation, into this node."""
    users = list(node.users)
    if len(users) != 1 or not _is(graph, users[0], _FUSED_MODULES, _FUSED_CALLS):
        return False
    return isinstance(module_of(graph, node), QuantizedLayer) or node.target in _FUSES_INTO


def _fixed(graph: fx.GraphModule, node: fx.Node) -> tuple[float, int] | None:
    part = module_of(graph, node)
    if part is not None:
        return _FIXED_MODULES.get(type(part))
    return _FIXED_CALLS.get(node.target) if node.op.startswith("call") else None


def _is(graph: fx.GraphModule, node: fx.Node, modules: Any, calls: Any) -> bool:
    if node.op == "call_module":
        return isinstance(module_of(graph, node), modules)
    return node.op in ("call_function", "call_method") and node.target in calls
