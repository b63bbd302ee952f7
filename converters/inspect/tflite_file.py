"""Reading TFLite files by their flatbuffer schema, without an interpreter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from converters.inspect.model import DAMAGED, Layer, ModelFacts, unreadable
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.runtime.tensors import guess_layout

_WEIGHTED = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "BATCH_MATMUL": 1,
}
"""Operators with weights, and which input holds them."""
_ACTIVATION = {"TRANSPOSE_CONV": 2}
_TRANSPARENT = {"DEQUANTIZE", "RESHAPE", "TRANSPOSE"}


def read_tflite(path: Path) -> ModelFacts:
    """Facts about a TFLite file's main graph.

    Raises:
        ConversionError: ``conversion.unreadable-model``.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    try:
        return _Reader(schema, schema.Model.GetRootAs(data, 0), len(data)).facts()
    except DAMAGED as error:
        raise unreadable(path, "not a valid TFLite flatbuffer") from error


class _Reader:
    def __init__(self, schema: Any, model: Any, size_bytes: int) -> None:
        self._schema = schema
        self._model = model
        self._graph = model.Subgraphs(0)
        self._size_bytes = size_bytes
        self._op_names = _names(schema.BuiltinOperator)
        self._type_names = {code: name.lower() for code, name in _names(schema.TensorType).items()}
        self._made_by = {
            int(index): operator
            for operator in self._operators()
            for index in operator.OutputsAsNumpy()
        }

    def facts(self) -> ModelFacts:
        constants: dict[str, int] = {}
        for index in range(self._graph.TensorsLength()):
            tensor = self._graph.Tensors(index)
            if self._is_constant(index):
                dtype = self._dtype(index)
                size = int(_elements(tensor) * self._width(index))
                constants[dtype] = constants.get(dtype, 0) + size
        layers = [self._layer(operator) for operator in self._operators()]
        return ModelFacts(
            format="tflite",
            size_bytes=self._size_bytes,
            inputs=tuple(self._spec(int(i)) for i in self._graph.InputsAsNumpy()),
            outputs=tuple(self._spec(int(i)) for i in self._graph.OutputsAsNumpy()),
            ops=dict(Counter(self._op(operator) for operator in self._operators())),
            constants=constants,
            layers=tuple(layer for layer in layers if layer is not None),
        )

    def _operators(self) -> list[Any]:
        return [self._graph.Operators(i) for i in range(self._graph.OperatorsLength())]

    def _op(self, operator: Any) -> str:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        # Files older than schema 3a keep the code in the deprecated one-byte field.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if self._op_names[number] == "CUSTOM" and code.CustomCode():
            return str(code.CustomCode().decode(errors="replace"))
        return self._op_names[number]

    def _layer(self, operator: Any) -> Layer | None:
        op = self._op(operator)
        if op not in _WEIGHTED:
            return None
        inputs = [int(index) for index in operator.InputsAsNumpy()]
        weight = self._constant(inputs[_WEIGHTED[op]])
        if weight is None:
            return None
        tensor = self._graph.Tensors(weight)
        return Layer(
            op=op,
            name=_short(tensor.Name()),
            weight_dtype=self._dtype(weight),
            weight_elements=_elements(tensor),
            activation_dtype=self._dtype(inputs[_ACTIVATION.get(op, 0)]),
            expanded=weight != inputs[_WEIGHTED[op]]
            and self._dtype(inputs[_WEIGHTED[op]]) != self._dtype(weight),
        )

    def _constant(self, index: int) -> int | None:
        """The constant behind a tensor, looking through dequantizations."""
        for _ in range(8):
            if self._is_constant(index):
                return index
            maker = self._made_by.get(index)
            if maker is None or self._op(maker) not in _TRANSPARENT:
                return None
            index = int(maker.Inputs(0))
        return None

    def _is_constant(self, index: int) -> bool:
        buffer = self._model.Buffers(self._graph.Tensors(index).Buffer())
        # Large buffers may lie behind the flatbuffer, named by offset and size only.
        return bool(buffer.DataLength() or buffer.Size())

    def _dtype(self, index: int) -> str:
        return self._type_names[self._graph.Tensors(index).Type()]

    def _width(self, index: int) -> float:
        name = self._dtype(index)
        if name in ("int4", "uint4"):
            return 0.5
        return np.dtype(name).itemsize if name in np.sctypeDict else 1

    def _spec(self, index: int) -> TensorSpec:
        tensor = self._graph.Tensors(index)
        shape = tuple(int(size) for size in np.atleast_1d(tensor.ShapeAsNumpy()))
        quantization = tensor.Quantization()
        quantized = quantization is not None and quantization.ScaleLength() == 1
        return TensorSpec(
            name=tensor.Name().decode(errors="replace"),
            dtype=self._dtype(index),
            shape=shape,
            layout=guess_layout(shape, "NHWC"),
            scale=float(quantization.Scale(0)) if quantized else None,
            zero_point=int(quantization.ZeroPoint(0)) if quantized else None,
        )


def _names(enumeration: Any) -> dict[int, str]:
    return {code: name for name, code in vars(enumeration).items() if isinstance(code, int)}


def _elements(tensor: Any) -> int:
    return int(np.prod(np.atleast_1d(tensor.ShapeAsNumpy()), dtype=np.int64))


def _short(name: bytes) -> str:
    """The exporter writes the whole module path; its last part is what a person recognises."""
    text = name.decode(errors="replace").strip(";")
    return text.rsplit("/", 1)[-1][-80:]
