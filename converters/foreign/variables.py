"""TFLite files that keep their state in variables, rewritten to take it in and give it out.

Variables hide what a stream remembers: it cannot be reset, compared or carried to another runtime.
Each becomes an input, where it was read, and an output, where it was written; arithmetic stays as
it is, bit by bit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.errors import ConversionError

MAX_BYTES = 64 * 1024**2
_HANDLED = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file without variables."""

    data: bytes
    states: tuple[tuple[int, int], ...]
    """(input, output) positions."""


def without_variables(path: Path) -> Rewritten:
    """A TFLite file whose variables have become states.

    Raises:
        ConversionError: ``conversion.unreadable-model``, or ``conversion.hidden-state`` where
            variables are used in a way that states cannot express.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        found = _Variables(path, schema, model)
    except (OSError, ValueError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise ConversionError(
            "unreadable-model",
            f"{path} cannot be read as a TFLite file: {error}.",
            "Give the .tflite file that its maker published.",
        ) from error
    states = found.rewrite()
    return Rewritten(_packed(model), states)


class _Variables:
    """The variables of a parsed file."""

    def __init__(self, path: Path, schema: Any, model: Any) -> None:
        self._path, self._model, self._graph = path, model, model.subgraphs[0]
        names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
        codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
        self._int8, self._uint8 = schema.TensorType.INT8, schema.TensorType.UINT8
        self._kinds = [names.get(code, "") for code in codes]

    def rewrite(self) -> tuple[tuple[int, int], ...]:
        """Change the graph in place; the positions of its states."""
        graph = self._graph
        handles = {
            int(op.outputs[0]): self._name(op)
            for op in graph.operators
            if self._kind(op) == "VAR_HANDLE"
        }
        read = self._by_variable("READ_VARIABLE", handles, lambda op: int(op.outputs[0]))
        written = self._by_variable("ASSIGN_VARIABLE", handles, lambda op: int(op.inputs[1]))
        if read.keys() != written.keys():
            raise self._refused("a variable is only read, or only written")
        self._check_order()
        self._check_begin(written)
        first_input, first_output = len(graph.inputs), len(graph.outputs)
        graph.inputs = [int(i) for i in graph.inputs] + [read[name] for name in read]
        graph.outputs = [self._unshifted(int(o)) for o in graph.outputs]
        graph.outputs += [written[name] for name in read]
        graph.operators = [op for op in graph.operators if self._kind(op) not in _HANDLED]
        self._model.subgraphs = [graph]
        self._model.signatureDefs = []
        return tuple((first_input + at, first_output + at) for at in range(len(read)))

    def _unshifted(self, output: int) -> int:
        """The int8 tensor of which an output is a copy in uint8: the same numbers, and no scheme
        here mixes the two."""
        for op in self._graph.operators:
            if int(op.outputs[0] if len(op.outputs) else -1) == output:
                source = int(op.inputs[0])
                types = [self._graph.tensors[index].type for index in (source, output)]
                if self._kind(op) == "QUANTIZE" and types == [self._int8, self._uint8]:
                    self._graph.operators.remove(op)
                    return source
        return output

    def _by_variable(self, kind: str, handles: dict[int, str], tensor: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        for op in self._graph.operators:
            if self._kind(op) == kind:
                name = handles.get(int(op.inputs[0]), "")
                if not name or name in found:
                    raise self._refused(f"one of its variables is not used once by {kind}")
                found[name] = tensor(op)
        return found

    def _check_order(self) -> None:
        """What is read must be what the step before has written."""
        written: set[int] = set()
        for op in self._graph.operators:
            if self._kind(op) == "ASSIGN_VARIABLE":
                written.add(int(op.inputs[0]))
            elif self._kind(op) == "READ_VARIABLE" and int(op.inputs[0]) in written:
                raise self._refused("a variable is read after it was written in the same step")

    def _check_begin(self, written: dict[str, int]) -> None:
        """A stream begins with real zeros here; the file must want that, too."""
        for graph in self._model.subgraphs[1:]:
            handles = {
                int(op.outputs[0]): self._name(op)
                for op in graph.operators
                if self._kind(op) == "VAR_HANDLE"
            }
            for op in graph.operators:
                name = handles.get(int(op.inputs[0]), "") if len(op.inputs) else ""
                if self._kind(op) == "ASSIGN_VARIABLE" and name in written:
                    first = graph.tensors[int(op.inputs[1])]
                    zero = self._zero_point(written[name])
                    if not self._is_filled_with(first, zero):
                        raise self._refused("a variable does not begin with zeros")

    def _is_filled_with(self, tensor: Any, value: int) -> bool:
        data = self._model.buffers[tensor.buffer].data
        if data is None:
            return False
        raw = np.frombuffer(bytes(bytearray(data)), np.uint8)
        return bool((raw == value % 256).all())

    def _zero_point(self, index: int) -> int:
        quantization = self._graph.tensors[index].quantization
        points = None if quantization is None else quantization.zeroPoint
        return int(points[0]) if points is not None and len(points) else 0

    def _kind(self, op: Any) -> str:
        return str(self._kinds[op.opcodeIndex])

    def _name(self, op: Any) -> str:
        name = op.builtinOptions.sharedName
        return str(name.decode() if isinstance(name, bytes) else name)

    def _refused(self, what: str) -> ConversionError:
        return ConversionError(
            "hidden-state",
            f"{self._path.name} keeps its state in variables that cannot be made inputs and "
            f"outputs: {what}.",
            "Export it as a streaming model whose states are inputs and outputs.",
        )


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
