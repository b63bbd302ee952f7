"""A TFLite file made static, with the one signature that quantizers ask for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from converters.importing.examine import Shapes, check_names, choose_shape
from converters.inspect import inspect_model
from converters.inspect.model import DAMAGED, unreadable
from converters.metadata.tflite_notes import without_archive
from converters.metadata.tflite_prefix import with_signature
from converters.tflite_export import SIGNATURE
from edge_sdk.errors import ConversionError


def normalise_tflite(source: Path, target: Path, shapes: Shapes) -> None:
    """Write ``source`` with static input shapes and the signature ``serving_default``.

    Raises:
        ConversionError: as :func:`converters.importing.examine.examine`.
    """
    facts = inspect_model(source)
    _check_operators(facts.ops, source)
    data = bytearray(without_archive(source.read_bytes()))
    try:
        inputs, outputs = _fix_shapes(data, shapes)
        target.write_bytes(with_signature(bytes(data), SIGNATURE, inputs, outputs))
    except DAMAGED as error:
        raise unreadable(source, "not a valid TFLite flatbuffer") from error


def _check_operators(ops: dict[str, int], source: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    known = vars(schema.BuiltinOperator)
    foreign = sorted(name for name in ops if name not in known or name == "CUSTOM")
    if foreign:
        raise ConversionError(
            "unsupported-op",
            f"{source.name} uses {', '.join(foreign[:5])}, which the plain runtime does not have.",
            "Export the model with built-in operators only (no Flex, no custom operators).",
        )


def _fix_shapes(
    data: bytearray, shapes: Shapes
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Write chosen shapes into the file, in place; name and tensor of each input and output.

    Only the inputs' own shapes need changing: the interpreter works out the others from them.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph: Any = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    indexes = [int(graph.Inputs(i)) for i in range(graph.InputsLength())]
    names = [graph.Tensors(index).Name().decode(errors="replace") for index in indexes]
    check_names(shapes, names)
    for name, index in zip(names, indexes, strict=True):
        tensor = graph.Tensors(index)
        shape = [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]
        dynamic = tensor.ShapeSignatureLength() == len(shape)
        signature = [int(tensor.ShapeSignature(i)) for i in range(len(shape))] if dynamic else shape
        declared = tuple(None if size < 0 else size for size in signature)
        if not declared:
            continue
        chosen = choose_shape(name, declared, shapes, only=len(indexes) == 1)
        _patch(data, tensor, 0, chosen)
        if dynamic:
            _patch(data, tensor, 7, chosen)
    results = [int(graph.Outputs(i)) for i in range(graph.OutputsLength())]
    return (
        [(f"args_{number}", index) for number, index in enumerate(indexes)],
        [(f"output_{number}", index) for number, index in enumerate(results)],
    )


def _patch(data: bytearray, tensor: Any, slot: int, values: tuple[int, ...]) -> None:
    """Overwrite a vector of int32 in slot ``slot`` of a tensor."""
    table = tensor._tab
    at = table.Offset(4 + 2 * slot)
    if at:
        struct.pack_into(f"<{len(values)}i", data, table.Vector(at), *values)
