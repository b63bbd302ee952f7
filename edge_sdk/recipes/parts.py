"""Where the tensors of a model file lie: the host's knowledge for finding recipes.

The readers are hints, not judges: whatever they miss or misread costs bytes in the recipe, never
correctness, because a recipe is tried before it is kept. A file they cannot follow has no parts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

MIN_PART_BYTES = 32
"""Smaller tensors are found as plain bytes."""
MAX_PARTS = 65_536


@dataclass(frozen=True, slots=True)
class Part:
    """A row-major array inside a file."""

    name: str
    offset: int
    shape: tuple[int, ...]
    itemsize: int

    @property
    def length(self) -> int:
        """Bytes of the part."""
        return prod(self.shape) * self.itemsize


def find_parts(data: bytes) -> list[Part]:
    """The parts of a file, in the order of the file and without overlaps.

    Args:
        data: a TFLite or ONNX file, a zip archive such as ``.npz``, or anything else.
    """
    from edge_sdk.recipes.archive_parts import archive_parts
    from edge_sdk.recipes.onnx_parts import onnx_parts
    from edge_sdk.recipes.tflite_parts import tflite_parts

    if data[:4] == b"PK\x03\x04":
        reader = archive_parts
    else:
        reader = tflite_parts if data[4:8] == b"TFL3" else onnx_parts
    try:
        found = list(reader(data))[:MAX_PARTS]
    except (ValueError, IndexError, struct.error, OverflowError, RecursionError):
        return []
    return _apart(found, len(data))


def _apart(parts: list[Part], size: int) -> list[Part]:
    """Those that lie in the file, each byte in one part only: tensors may share a buffer."""
    kept, end = [], 0
    for part in sorted(parts, key=lambda part: (part.offset, -part.length)):
        inside = part.offset >= end and part.offset + part.length <= size
        if inside and part.length >= MIN_PART_BYTES and min(part.shape, default=1) > 0:
            kept.append(part)
            end = part.offset + part.length
    return kept
