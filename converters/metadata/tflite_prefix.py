"""Giving a TFLite file other metadata or signatures without rewriting the rest of it.

Offsets in a flatbuffer are relative and only point forward, so a new root table can be put *in
front of* the old content: it refers to the old subgraphs, operators and buffers where they lie.
What follows moves by a multiple of 64 bytes, which keeps every alignment. Nothing else changes: no
weight is parsed or copied element by element, and a reader written for the schema sees one model.

Layout of a table: a signed offset back to its vtable, then its fields; of a vtable: its size, the
table's size, one 16-bit offset per field (0 where absent). Source: the FlatBuffers project's
description of its binary format.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

ALIGNMENT = 64
_SLOTS = 8
"""Fields of the schema's Model: version, operator_codes, subgraphs, description, buffers,
metadata_buffer, metadata, signature_defs."""
_BUFFERS, _METADATA, _SIGNATURES = 4, 6, 7
_OFFSET_FIELD = 4 + 2 * 1
"""In the vtable of a Buffer (data, offset, size)."""


class Writer:
    """A region that is filled from the front; positions are absolute in the new file."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> int:
        """Pad to a multiple of ``size``; the position reached."""
        self.data += b"\0" * (-len(self.data) % size)
        return len(self.data)

    def u32(self, value: int) -> int:
        """Append a number; its position."""
        self.data += struct.pack("<I", value)
        return len(self.data) - 4

    def point(self, at: int, target: int) -> None:
        """Make the offset at ``at`` lead to ``target``, which lies behind it."""
        struct.pack_into("<I", self.data, at, target - at)

    def table(self, slots: int, present: tuple[int, ...]) -> dict[int, int]:
        """A vtable and its table of 4-byte fields; the position of each field by slot.

        The table's own position is under -1.
        """
        self.align(4)
        vtable = len(self.data)
        offsets = [0] * slots
        for index, slot in enumerate(present):
            offsets[slot] = 4 + 4 * index
        self.data += struct.pack(f"<{2 + slots}H", 4 + 2 * slots, 4 + 4 * len(present), *offsets)
        table = self.align(4)
        self.data += struct.pack("<i", table - vtable) + b"\0" * (4 * len(present))
        return {slot: table + offsets[slot] for slot in present} | {-1: table}


def with_metadata(data: bytes, name: str, content: bytes) -> bytes:
    """The file with ``content`` as the metadata buffer ``name``; another of that name goes.

    Args:
        data: a whole TFLite flatbuffer, nothing appended to it.
        name: ASCII.
        content: bytes of the buffer.

    Raises:
        struct.error, IndexError, ValueError: the file is damaged.
    """
    old, writer = _Old(data), Writer()
    fields = _new_root(writer, old, data, (_BUFFERS, _METADATA))
    kept = [position for position, key in old.metadata if key != name.encode()]
    buffer_entries = _vector(writer, fields[_BUFFERS], len(old.buffers) + 1)
    metadata_entries = _vector(writer, fields[_METADATA], len(kept) + 1)
    _put_metadata(writer, metadata_entries[-1], name, len(old.buffers))
    _put_buffer(writer, buffer_entries[-1], content)
    shift = _point_back(writer, old, fields, (_BUFFERS, _METADATA))
    for entry, position in zip(buffer_entries, old.buffers, strict=False):
        writer.point(entry, position + shift)
    for entry, position in zip(metadata_entries, kept, strict=False):
        writer.point(entry, position + shift)
    return bytes(writer.data) + _moved(data, old, shift)


def with_signature(
    data: bytes, key: str, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]
) -> bytes:
    """The file with exactly one signature, on its first subgraph; earlier ones go.

    Args:
        data: a whole TFLite flatbuffer, nothing appended to it.
        key: ASCII name of the signature.
        inputs: name and tensor index of each input.
        outputs: of each output.

    Raises:
        struct.error, IndexError, ValueError: the file is damaged.
    """
    old, writer = _Old(data), Writer()
    fields = _new_root(writer, old, data, (_SIGNATURES,))
    (entry,) = _vector(writer, fields[_SIGNATURES], 1)
    signature = writer.table(5, (0, 1, 2))
    writer.point(entry, signature[-1])
    for slot, maps in enumerate((inputs, outputs)):
        entries = _vector(writer, signature[slot], len(maps))
        for place, (name, index) in zip(entries, maps, strict=True):
            tensor = writer.table(2, (0, 1))
            writer.point(place, tensor[-1])
            struct.pack_into("<I", writer.data, tensor[1], index)
            _put_text(writer, tensor[0], name)
    _put_text(writer, signature[2], key)
    shift = _point_back(writer, old, fields, (_SIGNATURES,))
    return bytes(writer.data) + _moved(data, old, shift)


def _moved(data: bytes, old: _Old, shift: int) -> bytes:
    """The old content, with the data that lies behind the flatbuffer found where it is now.

    Large buffers (quantizers write them so) are named by their position in the file, the one kind
    of offset here that is not relative.
    """
    moved = bytearray(data)
    for position in old.buffers:
        vtable = position - struct.unpack_from("<i", data, position)[0]
        if struct.unpack_from("<H", data, vtable)[0] < _OFFSET_FIELD + 2:
            continue
        field = struct.unpack_from("<H", data, vtable + _OFFSET_FIELD)[0]
        place = struct.unpack_from("<Q", data, position + field)[0] if field else 0
        if place > 1:  # 0 and 1 say that there is none
            struct.pack_into("<Q", moved, position + field, place + shift)
    return bytes(moved)


def _new_root(writer: Writer, old: _Old, data: bytes, rewritten: tuple[int, ...]) -> dict[int, int]:
    """The start of the file and its new root table."""
    root = writer.u32(0)
    writer.data += data[4:8]
    present = tuple(slot for slot in range(_SLOTS) if slot in rewritten or old.field(slot))
    fields = writer.table(_SLOTS, present)
    writer.point(root, fields[-1])
    if 0 in fields:
        struct.pack_into("<I", writer.data, fields[0], old.version)
    return fields


def _point_back(
    writer: Writer, old: _Old, fields: dict[int, int], rewritten: tuple[int, ...]
) -> int:
    """End the new part: every other field of the root leads to the old content."""
    shift = writer.align(ALIGNMENT)
    for slot in range(1, _SLOTS):
        if slot in fields and slot not in rewritten:
            writer.point(fields[slot], old.target(slot) + shift)
    return shift


def _vector(writer: Writer, field: int, count: int) -> list[int]:
    """A vector of offsets that ``field`` leads to; where each entry lies."""
    writer.align(4)
    writer.point(field, writer.u32(count))
    return [writer.u32(0) for _ in range(count)]


def _put_text(writer: Writer, field: int, text: str) -> None:
    writer.align(4)
    writer.point(field, writer.u32(len(text)))
    writer.data += text.encode() + b"\0"


def _put_metadata(writer: Writer, entry: int, name: str, buffer: int) -> None:
    """A ``Metadata`` table: name (slot 0) and index of its buffer (slot 1)."""
    fields = writer.table(2, (0, 1))
    writer.point(entry, fields[-1])
    struct.pack_into("<I", writer.data, fields[1], buffer)
    _put_text(writer, fields[0], name)


def _put_buffer(writer: Writer, entry: int, content: bytes) -> None:
    """A ``Buffer`` table whose data (slot 0) starts at a multiple of 16."""
    fields = writer.table(1, (0,))
    writer.point(entry, fields[-1])
    writer.data += b"\0" * (-(len(writer.data) + 4) % 16)
    writer.point(fields[0], writer.u32(len(content)))
    writer.data += content


class _Old:
    """Positions in the file as it is."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._root = self._u32(0)
        vtable = self._root - self._i32(self._root)
        (size,) = struct.unpack_from("<H", data, vtable)
        count = (size - 4) // 2
        if not 0 < count <= 64 or vtable < 0:
            raise ValueError("damaged vtable")
        self._offsets = struct.unpack_from(f"<{count}H", data, vtable + 4)
        self.version = self._u32(self.field(0)) if self.field(0) else 0
        self.buffers = self._vector(_BUFFERS)
        self.metadata = [(at, self._name(at)) for at in self._vector(_METADATA)]

    def field(self, slot: int) -> int:
        """Where a field lies; 0 when it is absent."""
        offset = self._offsets[slot] if slot < len(self._offsets) else 0
        return self._root + offset if offset else 0

    def target(self, slot: int) -> int:
        """What a field's offset leads to."""
        return self._follow(self.field(slot))

    def _vector(self, slot: int) -> list[int]:
        """What the offsets in a vector lead to; empty when it is absent."""
        if not self.field(slot):
            return []
        start = self.target(slot)
        count = self._u32(start)
        if count * 4 > len(self._data) - start:
            raise ValueError("damaged vector")
        return [self._follow(start + 4 + 4 * index) for index in range(count)]

    def _name(self, table: int) -> bytes:
        vtable = table - self._i32(table)
        (offset,) = struct.unpack_from("<H", self._data, vtable + 4)
        if not offset:
            return b""
        text = self._follow(table + offset)
        return self._data[text + 4 : text + 4 + self._u32(text)]

    def _follow(self, at: int) -> int:
        target = at + self._u32(at)
        if target >= len(self._data):
            raise ValueError("offset beyond the end")
        return target

    def _u32(self, at: int) -> int:
        return int(struct.unpack_from("<I", self._data, at)[0])

    def _i32(self, at: int) -> Any:
        return struct.unpack_from("<i", self._data, at)[0]
