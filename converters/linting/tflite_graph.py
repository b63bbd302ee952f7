"""A TFLite file as a neutral graph, read by its flatbuffer schema without an interpreter.

The user's layer is read from the tensors' names, into which the exporter writes the path of
modules, class and name each: ``net.Net/torch.nn.modules.conv.Conv2d_stem;1`` is the layer ``stem``.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from converters.inspect.model import unreadable
from device_profiles.latency import LayerCost, LayerKind
from device_profiles.lint import Graph, Node, Tensor

_SEGMENT = re.compile(r"[\w.]*?\.?_*[A-Z][A-Za-z0-9]*_(?P<name>[\w.]+)")
_WRAPPERS = ("wrapped", "module")
"""What the converter puts around the user's module."""
_KINDS: dict[str, LayerKind] = {
    "CONV_2D": "dense",
    "TRANSPOSE_CONV": "dense",
    "CONV_3D": "dense",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "pointwise",
    "BATCH_MATMUL": "pointwise",
}


def tflite_graph(path: Path) -> Graph:
    """The main graph of a TFLite file.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    try:
        return _Reader(schema, schema.Model.GetRootAs(data, 0), len(data)).graph()
    except (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError) as error:
        # The generated accessors check nothing: a damaged offset surfaces as any of these.
        raise unreadable(path, "not a valid TFLite flatbuffer") from error


class _Reader:
    def __init__(self, schema: Any, model: Any, size_bytes: int) -> None:
        self._model = model
        self._graph = model.Subgraphs(0)
        self._size = size_bytes
        self._ops = _names(schema.BuiltinOperator)
        self._types = {code: name.lower() for code, name in _names(schema.TensorType).items()}
        self._modules: dict[str, str] = {}

    def graph(self) -> Graph:
        tensors = [self._tensor(index) for index in range(self._graph.TensorsLength())]
        nodes = tuple(self._node(index, tensors) for index in range(self._graph.OperatorsLength()))
        return Graph(
            format="tflite",
            nodes=nodes,
            tensors={tensor.name: tensor for tensor in tensors},
            inputs=tuple(tensors[int(i)].name for i in self._graph.InputsAsNumpy()),
            outputs=tuple(tensors[int(i)].name for i in self._graph.OutputsAsNumpy()),
            size_bytes=self._size,
        )

    def _tensor(self, index: int) -> Tensor:
        """A tensor; its index is a part of its name, because names repeat."""
        tensor = self._graph.Tensors(index)
        buffer = self._model.Buffers(tensor.Buffer())
        shape = _shape(tensor.ShapeSignatureAsNumpy()) or _shape(tensor.ShapeAsNumpy())
        dtype = self._types[tensor.Type()]
        quantization = tensor.Quantization()
        known = math.prod(max(size, 1) for size in _shape(tensor.ShapeAsNumpy()))
        return Tensor(
            name=f"{_short(tensor.Name())}#{index}",
            dtype=dtype,
            shape=shape,
            bytes=known * _width(dtype),
            constant=bool(buffer.DataLength() or buffer.Size()),
            scales=quantization.ScaleLength() if quantization is not None else 0,
        )

    def _op(self, operator: Any) -> str:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        # Files older than schema 3a keep the code in the deprecated one-byte field.
        name = self._ops[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM" and code.CustomCode():
            return str(code.CustomCode().decode(errors="replace"))
        return name

    def _node(self, index: int, tensors: list[Tensor]) -> Node:
        operator = self._graph.Operators(index)
        into = [tensors[int(i)] for i in operator.InputsAsNumpy() if int(i) >= 0]
        outs = [int(i) for i in operator.OutputsAsNumpy()]
        op = self._op(operator)
        weights = [int(i) for i in operator.InputsAsNumpy() if int(i) >= 0]
        weights = [i for i in weights if tensors[i].constant]
        module = next((found for i in (*outs, *weights) if (found := self._module(i))), "")
        if not module:
            before = next((self._modules[t.name] for t in into if self._modules.get(t.name)), "")
            module = before if not before or before.startswith("after ") else f"after {before}"
        for i in outs:
            self._modules[tensors[i].name] = module
        return Node(
            name=f"{op}_{index}",
            op=op,
            module=module,
            inputs=tuple(tensor.name for tensor in into),
            outputs=tuple(tensors[i].name for i in outs),
            cost=_cost(op, into, [tensors[i] for i in outs]),
        )

    def _module(self, index: int) -> str:
        return module_of(self._graph.Tensors(index).Name().decode(errors="replace"))


def module_of(name: str) -> str:
    """The user's layer that the name of a tensor tells; empty where it tells none."""
    path = next((part for part in name.split(";") if "/" in part), "")
    found = [_SEGMENT.fullmatch(segment) for segment in path.split("/")[1:]]
    names = [match["name"] for match in found if match]
    while names and names[0] in _WRAPPERS:
        names.pop(0)
    return ".".join(names)


def _cost(op: str, into: list[Tensor], outs: list[Tensor]) -> LayerCost:
    moved = sum(tensor.bytes for tensor in (*into, *outs))
    kind = _KINDS.get(op)
    if kind is None or len(into) < 2 or not outs:
        return LayerCost("memory", 0, moved)
    output = math.prod(max(size, 1) for size in outs[0].shape)
    weight = into[1].shape
    if op == "BATCH_MATMUL":
        return LayerCost(kind, output * max(1, (into[0].shape or (1,))[-1]), moved)
    if op == "TRANSPOSE_CONV":
        output = math.prod(max(size, 1) for size in into[2].shape[:3]) if len(into) > 2 else output
        return LayerCost(kind, output * math.prod(weight), moved)
    inner = math.prod(weight[1:3]) if kind == "depthwise" else math.prod(weight[1:])
    pointwise = op == "CONV_2D" and math.prod(weight[1:3]) == 1
    return LayerCost("pointwise" if pointwise else kind, output * inner, moved)


def _shape(found: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in np.atleast_1d(found)) if not np.isscalar(found) else ()


def _names(enumeration: Any) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if isinstance(code, int)}


def _short(name: bytes) -> str:
    text = name.decode(errors="replace").strip(";")
    return text.rsplit("/", 1)[-1][-60:]


def _width(dtype: str) -> int:
    return max(1, np.dtype(dtype).itemsize) if dtype in np.sctypeDict else 1
