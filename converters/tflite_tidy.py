"""A correction of a freshly exported TFLite file, made in place.

Biases of transposed convolutions have the shape (1, 1, 1, C); the quantizer then writes their
scales along the first axis, which no runtime loads. They become (C,). Only a length inside the
flatbuffer changes, no offset does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def tidy(path: Path) -> int:
    """Correct an exported float file; returns how many places were changed."""
    data = bytearray(path.read_bytes())
    changed = TfliteGraph.over(data).flatten_biases()
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
        return cls.over(path.read_bytes())

    @classmethod
    def over(cls, data: bytes | bytearray) -> TfliteGraph:
        """The graph of a sound file's bytes; a bytearray's constants can be written to."""
        from ai_edge_litert import schema_py_generated as schema

        return cls(schema, schema.Model.GetRootAs(data, 0))

    def name(self, index: int) -> str:
        """A tensor's name."""
        return str(self._graph.Tensors(index).Name().decode())

    def is_float(self, index: int) -> bool:
        """Whether a tensor is float32."""
        return bool(self._graph.Tensors(index).Type() == self._schema.TensorType.FLOAT32)

    def is_constant(self, index: int) -> bool:
        """Whether the file has the tensor's values."""
        return bool(self._model.Buffers(self._graph.Tensors(index).Buffer()).DataLength())

    def elements(self, index: int) -> int:
        """Number of a tensor's elements."""
        tensor = self._graph.Tensors(index)
        return int(np.prod(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else 1

    def flatten_biases(self) -> int:
        """(1, 1, 1, C) biases of transposed convolutions as (C,)."""
        changed = 0
        for operator in self.named("TRANSPOSE_CONV"):
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

    def values(self, index: int) -> Any:
        """A float32 view of a constant's bytes in the file; empty where it has none."""
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

    def named(self, name: str) -> Iterator[Any]:
        """Operators by the name of their kind."""
        return (operator for operator in self.operators if self.op(operator) == name)

    def op(self, operator: Any) -> str:
        """Name of a builtin operator."""
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        name: str = self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        return name
