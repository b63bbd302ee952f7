"""Two corrections of a freshly exported TFLite file, made in place.

* Max pooling with padding becomes PADV2 with minus infinity, which no integer type can hold. Behind
  an activation that is never negative zero pads just as well, and exactly.
* Biases of transposed convolutions have the shape (1, 1, 1, C); the quantizer then writes their
  scales along the first axis, which no runtime loads. They become (C,).

Only lengths and values inside the flatbuffer change, no offset does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_NEVER_NEGATIVE = {"RELU", "RELU6", "RELU_0_TO_1", "LOGISTIC", "SOFTMAX"}
_FUSED = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
}
"""Operators that may end in an activation, and the table that says so."""


def tidy(path: Path) -> int:
    """Correct an exported float file; returns how many places were changed."""
    from ai_edge_litert import schema_py_generated as schema

    data = bytearray(path.read_bytes())
    graph = TfliteGraph(schema, schema.Model.GetRootAs(data, 0))
    changed = graph.pad_by_zero() + graph.flatten_biases()
    if changed:
        path.write_bytes(bytes(data))
    return changed


class TfliteGraph:
    """The main graph of a TFLite file, over its bytes."""

    def __init__(self, schema: Any, model: Any) -> None:
        self._schema = schema
        self._model = model
        self._graph = model.Subgraphs(0)
        self._names = {
            code: name
            for name, code in vars(schema.BuiltinOperator).items()
            if isinstance(code, int)
        }
        self.operators = [self._graph.Operators(i) for i in range(self._graph.OperatorsLength())]
        self.made_by = {int(i): o for o in self.operators for i in o.OutputsAsNumpy()}
        self.outputs = {int(index) for index in self._graph.OutputsAsNumpy()}
        self.readers: dict[int, list[Any]] = {}
        for operator in self.operators:
            for index in operator.InputsAsNumpy():
                self.readers.setdefault(int(index), []).append(operator)

    @classmethod
    def of(cls, path: Path) -> TfliteGraph:
        """The graph of a file that is known to be sound."""
        from ai_edge_litert import schema_py_generated as schema

        return cls(schema, schema.Model.GetRootAs(path.read_bytes(), 0))

    def is_constant(self, index: int) -> bool:
        """Whether the file has the tensor's values."""
        return bool(self._model.Buffers(self._graph.Tensors(index).Buffer()).DataLength())

    def elements(self, index: int) -> int:
        """Number of a tensor's elements."""
        tensor = self._graph.Tensors(index)
        return int(np.prod(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else 1

    def pad_by_zero(self) -> int:
        """Zero in place of minus infinity before max pooling of what is never negative."""
        fillers = [pad for pad in self._named("PADV2") if self._may_be_zero(pad)]
        wanted = {int(pad.Inputs(2)) for pad in fillers}
        changed = 0
        for index in wanted:
            if all(reader in fillers for reader in self.readers[index]):
                view = self._values(index)
                if view.size == 1 and np.isneginf(view[0]):
                    view[0] = 0.0
                    changed += 1
        return changed

    def flatten_biases(self) -> int:
        """(1, 1, 1, C) biases of transposed convolutions as (C,)."""
        changed = 0
        for operator in self._named("TRANSPOSE_CONV"):
            if operator.InputsLength() < 4 or int(operator.Inputs(3)) < 0:
                continue
            index = int(operator.Inputs(3))
            tensor = self._graph.Tensors(index)
            shape = tensor.ShapeAsNumpy()
            if tensor.ShapeLength() != 4 or shape[:3].tolist() != [1, 1, 1]:
                continue
            if all(self.op(reader) == "TRANSPOSE_CONV" for reader in self.readers[index]):
                self._shorten(tensor, int(shape[3]))
                changed += 1
        return changed

    def _may_be_zero(self, pad: Any) -> bool:
        source = self.made_by.get(int(pad.Inputs(0)))
        pools = self.readers.get(int(pad.Outputs(0)), [])
        return (
            source is not None
            and bool(pools)
            and all(self.op(pool) == "MAX_POOL_2D" for pool in pools)
            and (self.op(source) in _NEVER_NEGATIVE or self._activation(source) in _NEVER_NEGATIVE)
        )

    def _activation(self, operator: Any) -> str:
        kind = _FUSED.get(self.op(operator))
        table = operator.BuiltinOptions()
        if kind is None or table is None:
            return ""
        options = getattr(self._schema, kind)()
        options.Init(table.Bytes, table.Pos)
        code = options.FusedActivationFunction()
        kinds = vars(self._schema.ActivationFunctionType).items()
        return next((name for name, value in kinds if value == code), "")

    def _values(self, index: int) -> Any:
        """A writable float32 view of a constant's bytes in the file."""
        data = self._model.Buffers(self._graph.Tensors(index).Buffer())
        if not data.DataLength():
            return np.zeros(0, np.float32)
        return data.DataAsNumpy().view(np.float32)

    def _shorten(self, tensor: Any, length: int) -> None:
        """Rewrite the vector of a tensor's shape as one number: its count, then its first entry."""
        table = tensor._tab
        start = table.Vector(table.Offset(4))
        table.Bytes[start - 4 : start] = (1).to_bytes(4, "little")
        table.Bytes[start : start + 4] = length.to_bytes(4, "little")

    def _named(self, name: str) -> Iterator[Any]:
        return (operator for operator in self.operators if self.op(operator) == name)

    def op(self, operator: Any) -> str:
        """Name of a builtin operator."""
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        name: str = self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        return name
