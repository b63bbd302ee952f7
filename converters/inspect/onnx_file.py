"""Reading ONNX files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from converters.inspect.model import Layer, ModelFacts, unreadable
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.runtime.ort import METADATA_PREFIX, TensorNote
from edge_sdk.runtime.tensors import guess_layout

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "MatMulInteger"} | {
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "GRU",
    "LSTM",
    "RNN",
}
_TRANSPARENT = {"Cast", "DequantizeLinear", "Transpose", "Reshape", "Identity", "Flatten"}
_WEIGHT_INPUT = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}


def read_onnx(path: Path) -> ModelFacts:
    """Facts about an ONNX file.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    model = load_graph(path)
    try:
        onnx.checker.check_model(str(path))  # by path, for it to find weights beside the file
        return _Reader(model, path).facts()
    except (onnx.checker.ValidationError, ValueError, LookupError) as error:
        raise unreadable(path, f"not valid ONNX ({_brief(error)})") from error


def load_graph(path: Path) -> onnx.ModelProto:
    """The file itself; weights that lie beside it stay there, for they may be of any size.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    try:
        return onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise unreadable(path, f"not valid ONNX ({_brief(error)})") from error


class _Reader:
    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._path = path
        self._graph = model.graph
        self._notes = {entry.key: entry.value for entry in model.metadata_props}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made_by = {name: node for node in model.graph.node for name in node.output}
        self._types = {
            value.name: _dtype(value.type.tensor_type.elem_type)
            for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
        }

    def facts(self) -> ModelFacts:
        constants: Counter[str] = Counter()
        for tensor in self._constants.values():
            dtype = _dtype(tensor.data_type)
            constants[dtype] += int(np.prod(tensor.dims, dtype=np.int64)) * _width(dtype)
        layers = [self._layer(node) for node in self._graph.node if node.op_type in _WEIGHTED]
        return ModelFacts(
            format="onnx",
            size_bytes=self._path.stat().st_size,
            inputs=tuple(
                self._spec(value)
                for value in self._graph.input
                if value.name not in self._constants
            ),
            outputs=tuple(self._spec(value) for value in self._graph.output),
            ops=dict(Counter(node.op_type for node in self._graph.node)),
            constants=dict(constants),
            layers=tuple(layer for layer in layers if layer is not None),
        )

    def _spec(self, value: onnx.ValueInfoProto) -> TensorSpec:
        kind = value.type.tensor_type
        shape = tuple(int(dim.dim_value) for dim in kind.shape.dim)
        try:
            text = self._notes.get(METADATA_PREFIX + value.name, "{}")
            note = msgspec.json.decode(text, type=TensorNote)
        except msgspec.DecodeError as error:
            raise unreadable(self._path, f"its note on {value.name} is malformed") from error
        return TensorSpec(
            name=value.name,
            dtype=_dtype(kind.elem_type),
            shape=shape,
            layout=note.layout or guess_layout(shape, "NCHW"),
            scale=note.scale,
            zero_point=note.zero_point,
        )

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        """The layer of a node; None where both factors are computed (attention)."""
        tensor = self._constant(node.input[_WEIGHT_INPUT.get(node.op_type, 1)])
        if tensor is None:
            return None
        return Layer(
            op=node.op_type,
            name=tensor.name,
            weight_dtype=_dtype(tensor.data_type),
            weight_elements=int(np.prod(tensor.dims, dtype=np.int64)),
            activation_dtype=self._activation(node),
            expanded=self._expanded(node),
        )

    def _expanded(self, node: onnx.NodeProto) -> bool:
        """Whether a dequantization or cast stands before the weights (of a float operator)."""
        name = node.input[_WEIGHT_INPUT.get(node.op_type, 1)]
        for _ in range(8):
            maker = self._made_by.get(name)
            if maker is None:
                return False
            if maker.op_type in ("DequantizeLinear", "Cast"):
                return True
            name = maker.input[0]
        return False

    def _constant(self, name: str) -> onnx.TensorProto | None:
        """The constant behind a name, looking through casts and dequantizations."""
        for _ in range(8):
            found: onnx.TensorProto | None = self._constants.get(name)
            if found is not None:
                return found
            maker = self._made_by.get(name)
            if maker is None or maker.op_type not in _TRANSPARENT:
                return None
            name = maker.input[0]
        return None

    def _activation(self, node: onnx.NodeProto) -> str:
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            return "float32"  # quantized on the fly, float between the layers
        name = node.input[0]
        maker = self._made_by.get(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            zero_point = self._constants.get(maker.input[2]) if len(maker.input) > 2 else None
            return _dtype(zero_point.data_type) if zero_point is not None else "uint8"
        return self._types.get(name, "float32")


def _dtype(code: int) -> str:
    if code == 0:
        return "unknown"
    try:
        name: str = np.dtype(helper.tensor_dtype_to_np_dtype(code)).name
    except KeyError:
        raise ValueError(f"there is no element type {code}") from None
    return name


def _width(dtype: str) -> int:
    return max(1, np.dtype(dtype).itemsize) if dtype in np.sctypeDict else 1


def _brief(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
