"""An ONNX file as a neutral graph.

Operators between a dequantization and a quantization compute in the integer type around them, as
the runtimes fuse them; their tensors are given that type. The user's layer is read from the
exporter's metadata, else from the name of a weight, else it is the layer before.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, shape_inference

from converters.inspect.model import unreadable
from device_profiles.latency import LayerCost, LayerKind
from device_profiles.lint import Graph, Node, Tensor

SCOPES = "pkg.torch.onnx.name_scopes"
_MADE_UP = re.compile(r"val_\d+|_?onnx__|.*\.(?:scale|zero_point|steps)$")
_LOOKED_THROUGH = ("DequantizeLinear", "Cast", "Transpose", "Reshape")


def onnx_graph(path: Path) -> Graph:
    """The main graph of an ONNX file.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    try:
        model = shape_inference.infer_shapes(onnx.load(str(path)))
        onnx.checker.check_model(model)
        return _Reader(model, path.stat().st_size).graph()
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError, KeyError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise unreadable(path, f"not valid ONNX ({why})") from error
    except shape_inference.InferenceError as error:
        raise unreadable(path, "its shapes contradict each other") from error


class _Reader:
    def __init__(self, model: onnx.ModelProto, size_bytes: int) -> None:
        self._graph = model.graph
        self._size = size_bytes
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made_by = {name: node for node in model.graph.node for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._values = {
            value.name: value.type.tensor_type
            for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        }
        self._modules: dict[str, str] = {}
        """By output: the user's layer that made it."""

    def graph(self) -> Graph:
        tensors = {name: self._tensor(name) for name in self._names()}
        inputs = tuple(v.name for v in self._graph.input if v.name not in self._constants)
        return Graph(
            format="onnx",
            nodes=tuple(
                self._node(index, node, tensors) for index, node in enumerate(self._graph.node)
            ),
            tensors=tensors,
            inputs=inputs,
            outputs=tuple(value.name for value in self._graph.output),
            size_bytes=self._size,
        )

    def _names(self) -> Iterable[str]:
        for node in self._graph.node:
            yield from (name for name in (*node.input, *node.output) if name)
        yield from (value.name for value in (*self._graph.input, *self._graph.output))

    def _tensor(self, name: str) -> Tensor:
        constant = self._constants.get(name)
        if constant is not None:
            shape, code, ranked = tuple(constant.dims), constant.data_type, True
        else:
            kind = self._values.get(name)
            ranked = kind is not None and kind.HasField("shape")
            code = kind.elem_type if kind is not None else 0
            dims = kind.shape.dim if kind is not None and ranked else ()
            shape = tuple(int(d.dim_value) if d.HasField("dim_value") else -1 for d in dims)
        dtype = self._computed_in(name) or _dtype(code)
        known = math.prod(max(size, 1) for size in shape)
        return Tensor(
            name=name,
            dtype=dtype,
            shape=shape,
            bytes=known * _width(dtype),
            constant=constant is not None or self._is_stored(name),
            scales=self._scales(name),
            ranked=ranked,
        )

    def _is_stored(self, name: str) -> bool:
        """Whether a tensor comes from the file: a constant, or the dequantization of one."""
        maker = self._made_by.get(name)
        if maker is None:
            return False
        dequantized = maker.op_type == "DequantizeLinear" and maker.input[0] in self._constants
        return maker.op_type == "Constant" or dequantized

    def _computed_in(self, name: str) -> str:
        """Integer type of a float tensor between a dequantization and a quantization."""
        maker = self._made_by.get(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return self._stored(maker.input[0])
        readers = self._readers.get(name, [])
        if maker is not None and readers and all(r.op_type == "QuantizeLinear" for r in readers):
            return self._stored(readers[0].output[0])
        fused = [r for r in readers if r.op_type in ("Relu", "Clip") and len(readers) == 1]
        return self._computed_in(fused[0].output[0]) if fused and maker is not None else ""

    def _stored(self, name: str) -> str:
        constant = self._constants.get(name)
        if constant is not None:
            return _dtype(constant.data_type)
        kind = self._values.get(name)
        return _dtype(kind.elem_type) if kind is not None else "unknown"

    def _scales(self, name: str) -> int:
        """Scales of a quantized constant, read off the node that dequantizes it."""
        for reader in self._readers.get(name, []):
            if reader.op_type == "DequantizeLinear" and reader.input[0] == name:
                scale = self._constants.get(reader.input[1])
                return math.prod(scale.dims) if scale is not None else 1
        return 0

    def _node(self, index: int, node: onnx.NodeProto, tensors: dict[str, Tensor]) -> Node:
        module = self._module(node)
        for name in node.output:
            self._modules[name] = module
        return Node(
            name=node.name or f"{node.op_type}_{index}",
            op=node.op_type,
            module=module,
            inputs=tuple(name for name in node.input if name),
            outputs=tuple(name for name in node.output if name),
            cost=_cost(node, tensors),
        )

    def _module(self, node: onnx.NodeProto) -> str:
        for prop in node.metadata_props:
            if prop.key == SCOPES and (found := _last_scope(prop.value)):
                return found
        for name in node.input:
            if layer := self._layer_of_weight(name):
                return layer
        before = next((self._modules[n] for n in node.input if self._modules.get(n)), "")
        return before if not before or before.startswith("after ") else f"after {before}"

    def _layer_of_weight(self, name: str) -> str:
        for _ in range(4):
            if name in self._constants:
                named = "." in name and not _MADE_UP.match(name)
                return name.rpartition(".")[0] if named else ""
            maker = self._made_by.get(name)
            if maker is None or maker.op_type not in _LOOKED_THROUGH:
                return ""
            name = maker.input[0]
        return ""


def _last_scope(text: str) -> str:
    """``['', 'features', 'features.0', 'conv']`` names the layer ``features.0``."""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ""
    inner = scopes[:-1] if isinstance(scopes, list) else []
    return next((str(scope) for scope in reversed(inner) if scope), "")


def _cost(node: onnx.NodeProto, tensors: dict[str, Tensor]) -> LayerCost:
    names = [name for name in (*node.input, *node.output) if name in tensors]
    moved = sum(tensors[name].bytes for name in dict.fromkeys(names))
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return LayerCost("memory", 0, moved)
    output = math.prod(max(size, 1) for size in tensors[node.output[0]].shape)
    weight = tensors[node.input[1]].shape
    if node.op_type in ("Gemm", "MatMul"):
        inner = max(1, (tensors[node.input[0]].shape or (1,))[-1])
        return LayerCost("pointwise", output * inner, moved)
    if node.op_type == "ConvTranspose":
        output = math.prod(max(size, 1) for size in tensors[node.input[0]].shape)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    kind: LayerKind = "pointwise" if math.prod(weight[2:]) == 1 else "dense"
    if groups > 1 and len(weight) > 1 and weight[1] == 1:
        kind = "depthwise"
    return LayerCost(kind, output * math.prod(weight[1:]), moved)


def _dtype(code: int) -> str:
    if code == 0:
        return "unknown"
    name: str = np.dtype(helper.tensor_dtype_to_np_dtype(code)).name
    return name


def _width(dtype: str) -> int:
    return max(1, np.dtype(dtype).itemsize) if dtype in np.sctypeDict else 4
