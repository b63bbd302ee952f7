"""Reading the standard TFLite metadata flatbuffer (``metadata_schema.fbs`` of the TFLite project).

The file may come from anybody: every count is bounded, and damage surfaces as one of the
exceptions that :func:`read_standard` names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flatbuffers import number_types
from flatbuffers.table import Table

from edge_sdk.contracts.manifest import Preprocess

IDENTIFIER = b"M001"
_MAX_ITEMS = 1000
_MAX_TEXT = 8 * 1024**2
_IMAGE_PROPERTIES = 2
_NORMALIZATION = 1
_GRAY = 2


@dataclass(frozen=True, slots=True)
class Standard:
    """What a metadata buffer says."""

    name: str = ""
    description: str = ""
    preprocess: Preprocess | None = None
    custom: dict[str, bytes] = field(default_factory=dict)


def read_standard(content: bytes) -> Standard | None:
    """The parts of a metadata buffer that this product uses; None when it is something else.

    Raises:
        struct.error, IndexError, TypeError, ValueError: it is damaged.
    """
    if content[4:8] != IDENTIFIER:
        return None
    root = _Node(Table(content, int.from_bytes(content[:4], "little")))
    graphs = root.tables(3)
    return Standard(
        name=root.text(0).decode(errors="replace"),
        description=root.text(1).decode(errors="replace")[:2000],
        preprocess=_preprocess(graphs[0].tables(2)) if graphs else None,
        custom={
            item.text(0).decode(errors="replace"): item.text(1)
            for graph in graphs[:1]
            for item in graph.tables(9)
        },
    )


def _preprocess(inputs: list[_Node]) -> Preprocess | None:
    """Normalisation of the first input when it is an image with one."""
    content = inputs[0].table(3) if inputs else None
    if content is None or content.byte(0) != _IMAGE_PROPERTIES:
        return None
    properties = content.table(1)
    gray = properties is not None and properties.byte(0) == _GRAY
    for unit in inputs[0].tables(4):
        options = unit.table(1)
        if unit.byte(0) != _NORMALIZATION or options is None:
            continue
        channels = 1 if gray else 3
        mean, std = options.floats(0), options.floats(1)
        if len(mean) in (1, channels) and len(std) in (1, channels) and all(std):
            return Preprocess(
                color="gray" if gray else "rgb",
                mean=mean if len(mean) == channels else mean * channels,
                std=std if len(std) == channels else std * channels,
            )
    return None


class _Node:
    """A table and its fields by slot."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def _at(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def byte(self, slot: int) -> int:
        """A byte; 0 when absent."""
        at = self._at(slot)
        return int(self._table.Get(number_types.Uint8Flags, at + self._table.Pos)) if at else 0

    def text(self, slot: int) -> bytes:
        """A string or vector of bytes; empty when absent."""
        at = self._at(slot)
        if not at:
            return b""
        start, length = self._table.Vector(at), self._table.VectorLen(at)
        if not 0 <= length <= min(_MAX_TEXT, len(self._table.Bytes) - start):
            raise ValueError("text beyond the end")
        return bytes(self._table.Bytes[start : start + length])

    def table(self, slot: int) -> _Node | None:
        """A nested table."""
        at = self._at(slot)
        if not at:
            return None
        return _Node(Table(self._table.Bytes, self._table.Indirect(at + self._table.Pos)))

    def tables(self, slot: int) -> list[_Node]:
        """A vector of tables, at most :data:`_MAX_ITEMS`."""
        at = self._at(slot)
        if not at:
            return []
        start, length = self._table.Vector(at), min(self._table.VectorLen(at), _MAX_ITEMS)
        data = self._table.Bytes
        return [_Node(Table(data, self._table.Indirect(start + 4 * i))) for i in range(length)]

    def floats(self, slot: int) -> tuple[float, ...]:
        """A vector of floats."""
        at = self._at(slot)
        if not at:
            return ()
        start, length = self._table.Vector(at), min(self._table.VectorLen(at), _MAX_ITEMS)
        flags = number_types.Float32Flags
        return tuple(float(self._table.Get(flags, start + 4 * i)) for i in range(length))
