"""Initializers of an ONNX file, found by walking its protobuf wire format.

Wire format: https://protobuf.dev/programming-guides/encoding; field numbers from ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk.recipes.parts import Part

_GRAPH = 7
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA = 1, 2, 4, 8, 9
_ITEMSIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""``TensorProto.DataType`` to bytes per element."""

Field = tuple[int, int, int]
"""Number, start and end; for a plain number start holds its value and end is -1."""


def onnx_parts(data: bytes) -> Iterator[Part]:
    """Raw and float initializers of the main graph.

    Raises:
        ValueError, IndexError: the bytes are no protobuf message.
    """
    for number, start, end in _fields(data, 0, len(data)):
        if number == _GRAPH and end >= 0:
            for inner, first, last in _fields(data, start, end):
                if inner == _INITIALIZER and last >= 0:
                    yield from _tensor(data, first, last)


def _tensor(data: bytes, start: int, end: int) -> Iterator[Part]:
    dims: list[int] = []
    name, kind, raw = "", 0, (0, 0)
    for number, first, last in _fields(data, start, end):
        if number == _DIMS:
            dims += [first] if last < 0 else list(_packed(data, first, last))
        elif number == _DATA_TYPE:
            kind = first
        elif number == _NAME:
            name = data[first:last].decode("utf-8", "replace")
        elif number in (_RAW_DATA, _FLOAT_DATA) and last >= 0:
            raw = first, last
    part = Part(name, raw[0], tuple(dims), _ITEMSIZES.get(kind, 0))
    if part.length and part.length == raw[1] - raw[0]:
        yield part


def _packed(data: bytes, start: int, end: int) -> Iterator[int]:
    while start < end:
        value, start = _varint(data, start)
        yield value


def _fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value, -1
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if length > end - at:
            raise ValueError("a field leaves its message")
        yield number, at, at + length
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number does not end")
