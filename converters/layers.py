"""Layers as a person names them, and the operators of an exported graph that make them up.

Sensitivity analysis and mixed precision speak of layers; the quantizers of nodes (ONNX) and scopes
(TFLite). A layer is a module with weights, a normalisation, or an operator of its own kind known
to suffer from few steps (softmax, attention products, smooth activations).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from converters.settings import LayerKind, Settings

_ONNX_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization"} | {
    "InstanceNormalization",
    "GroupNormalization",
    "BatchNormalization",
}
_ONNX_ALONE = {"Softmax", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Erf"}
_TFLITE_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"} | {
    "BATCH_MATMUL"
}
_TFLITE_ALONE = {"SOFTMAX", "HARD_SWISH", "LOGISTIC", "TANH", "GELU"}
_DENSE = ("CONV", "GEMM", "MATMUL", "FULLY_CONNECTED", "DEPTHWISE", "TRANSPOSE_CONV")
_KINDS: Mapping[LayerKind, frozenset[str]] = {
    "linear": frozenset(("FULLY_CONNECTED", "BATCH_MATMUL", "Gemm", "MatMul")),
    "convolution": frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "Conv"))
    | {"ConvTranspose"},
}
_SEGMENT = re.compile(r"^(?:[\w.]*\.)?(?P<kind>[A-Z]\w*?)_(?P<name>\w+)$")


_WRAPPER = "module"
"""What the exporter calls the user's module inside its own (:mod:`converters.tflite_export`)."""


@dataclass(frozen=True, slots=True)
class GraphLayer:
    """One layer of an exported graph."""

    name: str
    """Path of the module in the user's code where it is known, else the operator and a number."""
    op: str
    members: tuple[str, ...]
    """Node names (ONNX) or operator scopes (TFLite)."""


def onnx_layers(path: Path) -> list[GraphLayer]:
    """The layers of a float ONNX file, in graph order."""
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    users = {name: node for node in reversed(graph.node) for name in node.input}
    found: list[tuple[str, str, str]] = []
    for node in graph.node:
        if not node.name or node.op_type not in _ONNX_WEIGHTED | _ONNX_ALONE:
            continue
        name = _module_of(node, constants, users) or f"{node.op_type}:{node.name}"
        found.append((name, node.op_type, node.name))
    return _grouped(found)


def tflite_layers(path: Path) -> list[GraphLayer]:
    """The layers of a float TFLite file's main graph, in graph order."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    model = flatbuffers.read_model(str(path))
    graph = model.subgraphs[0]
    found: list[tuple[str, str, str]] = []
    for index, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        key: Any = flatbuffers.TFL_OP_CODE_TO_NAME.get(code)
        if key is None:
            continue
        op = str(key.value)
        scope = flatbuffers.get_op_scope(operator, graph.tensors)
        module = module_path(scope)
        normalises = "Norm" in scope.rsplit("/", 1)[-1]
        if op in _TFLITE_WEIGHTED or normalises:
            found.append((module or f"{op}:{index}", op, scope))
        elif op in _TFLITE_ALONE:
            found.append((f"{op}:{index}", op, scope))
    return _grouped(found)


def layers_of(path: Path) -> list[GraphLayer]:
    """The layers of a float model file, by its suffix."""
    return onnx_layers(path) if path.suffix == ".onnx" else tflite_layers(path)


def default_keep(path: Path) -> tuple[str, ...]:
    """Layers that mixed precision keeps when nothing was measured: those known to need it.

    Normalisations and softmax, and the first and last layer with weights, which see the raw input
    and decide the output.
    """
    layers = layers_of(path)
    weighted = [layer for layer in layers if layer.op.upper().startswith(_DENSE)]
    ends = [weighted[0].name, weighted[-1].name] if len(weighted) > 2 else []
    delicate = [layer.name for layer in layers if _delicate(layer)]
    return tuple(dict.fromkeys([*delicate, *ends]))


def as_mixed(path: Path, settings: Settings) -> Settings:
    """Settings with the layers that a mixed static file has in integers, or keeps, by name."""
    if settings.integers:
        ops = {op for kind in settings.integers for op in _KINDS[kind]}
        return replace(settings, only=tuple(x.name for x in layers_of(path) if x.op in ops))
    return settings if settings.keep else replace(settings, keep=default_keep(path))


def _delicate(layer: GraphLayer) -> bool:
    kinds = {layer.op.upper(), *(member.upper() for member in layer.members)}
    return any("SOFTMAX" in kind or "NORM" in kind.rsplit("/", 1)[-1] for kind in kinds)


def members(path: Path, names: tuple[str, ...]) -> list[str]:
    """Nodes or scopes of some layers; names that do not occur are passed over."""
    wanted = set(names)
    return [part for layer in layers_of(path) if layer.name in wanted for part in layer.members]


def _grouped(found: list[tuple[str, str, str]]) -> list[GraphLayer]:
    groups: dict[str, tuple[str, list[str]]] = {}
    for name, op, member in found:
        groups.setdefault(name, (op, []))[1].append(member)
    return [GraphLayer(name, op, tuple(parts)) for name, (op, parts) in groups.items()]


def _module_of(
    node: onnx.NodeProto, constants: set[str], users: dict[str, onnx.NodeProto]
) -> str | None:
    """The module that owns a node's parameters, by their exported names.

    A linear layer on three axes becomes a product with an unnamed constant and an addition of the
    bias; there the bias tells.
    """
    names = [name for name in node.input if name in constants]
    if node.op_type == "MatMul" and names and node.output[0] in users:
        names += [name for name in users[node.output[0]].input if name in constants]
    for name in names:
        if "." in name:
            return str(name.rpartition(".")[0])
    return None


def module_path(scope: str) -> str:
    """``stem.0`` out of litert-torch's scope of module classes and names; empty at the top."""
    last = [part for part in scope.split(";") if "/" in part]
    if not last:
        return ""
    parts = []
    for segment in last[-1].split("/"):
        match = _SEGMENT.match(segment)
        if match is not None and match["name"] != "wrapped":
            parts.append(match["name"])
    return ".".join(parts[1:] if parts[:1] == [_WRAPPER] else parts)
