"""Constants and per-channel scales of a TFLite file, found by walking its flatbuffer.

Format: https://flatbuffers.dev/internals; field positions from TensorFlow Lite's ``schema.fbs``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edge_sdk.recipes.parts import Part

_SUBGRAPHS, _BUFFERS = 2, 4
_TENSORS = 0
_SHAPE, _TYPE, _BUFFER, _NAME, _QUANTIZATION = 0, 1, 2, 3, 4
_SCALE, _ZERO_POINT = 2, 3
_DATA, _FAR_OFFSET, _FAR_SIZE = 0, 1, 2
_ITEMSIZES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8, 15: 4, 16: 2}
"""``TensorType`` to bytes per element."""


def tflite_parts(data: bytes) -> Iterator[Part]:
    """Constant tensors and vectors of quantization parameters.

    Raises:
        ValueError, struct.error: the bytes are no such flatbuffer.
    """
    model = _u32(data, 0)
    buffers = list(_tables(data, model, _BUFFERS))
    for number, graph in enumerate(_tables(data, model, _SUBGRAPHS)):
        for index, tensor in enumerate(_tables(data, graph, _TENSORS)):
            name = f"{number}/{_text(data, tensor, _NAME) or index}"
            yield from _constant(data, tensor, buffers, name)
            yield from _scales(data, tensor, name)


def _constant(data: bytes, tensor: int, buffers: list[int], name: str) -> Iterator[Part]:
    at = _field(data, tensor, _BUFFER)
    index = _u32(data, at) if at else 0
    if not 0 < index < len(buffers):
        return
    start, length = _content(data, buffers[index])
    kind = _field(data, tensor, _TYPE)
    shape, _, size = _vector(data, tensor, _SHAPE)
    dims = struct.unpack_from(f"<{size}i", data, shape) if size else ()
    part = Part(name, start, dims, _ITEMSIZES.get(data[kind] if kind else 0, 0))
    if length and part.length == length:
        yield part


def _content(data: bytes, buffer: int) -> tuple[int, int]:
    """Start and length of a buffer, inside the flatbuffer or behind it."""
    far = _field(data, buffer, _FAR_OFFSET)
    if far and (start := _u64(data, far)) > 1:
        size = _field(data, buffer, _FAR_SIZE)
        return start, _u64(data, size) if size else 0
    start, present, length = _vector(data, buffer, _DATA)
    return (start, length) if present else (0, 0)


def _scales(data: bytes, tensor: int, name: str) -> Iterator[Part]:
    at = _field(data, tensor, _QUANTIZATION)
    if not at:
        return
    quantization = at + _u32(data, at)
    for label, field, itemsize in (("scale", _SCALE, 4), ("zero", _ZERO_POINT, 8)):
        start, present, size = _vector(data, quantization, field)
        if present and size > 1:
            yield Part(f"{name}/{label}", start, (size,), itemsize)


def _tables(data: bytes, table: int, field: int) -> Iterator[int]:
    start, present, size = _vector(data, table, field)
    if present:
        for at in range(start, start + 4 * size, 4):
            yield at + _u32(data, at)


def _text(data: bytes, table: int, field: int) -> str:
    start, _, size = _vector(data, table, field)
    return data[start : start + size].decode("utf-8", "replace")


def _vector(data: bytes, table: int, field: int) -> tuple[int, bool, int]:
    """Start, presence and element count of a vector field."""
    at = _field(data, table, field)
    if not at:
        return 0, False, 0
    start = at + _u32(data, at)
    size = _u32(data, start)
    if size > len(data):
        raise ValueError("a vector is longer than the file")
    return start + 4, True, size


def _field(data: bytes, table: int, field: int) -> int:
    """Position of a table's field, 0 when it has none."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    if layout < 0:
        raise ValueError("a table's layout lies outside of the file")
    slot = 4 + 2 * field
    if slot >= _u16(data, layout):
        return 0
    offset = _u16(data, layout + slot)
    return table + offset if offset else 0


def _u16(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", data, at)[0])


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _u64(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<Q", data, at)[0])
