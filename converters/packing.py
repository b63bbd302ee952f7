"""Several arrays that travel as one.

A task of kind ``generic`` may have any number of inputs and outputs. Between the collecting of
samples and the call of a runtime they travel as one float32 array (N, elements), so that every
file, digest and comparison deals with one array. A single array keeps its shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.task import Floats

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

MAX_WHOLE = 1 << 24
"""Whole numbers up to this size survive the way through float32."""


def pack(arrays: Sequence[Array]) -> Floats:
    """One float32 array of several.

    Args:
        arrays: each (N, ...), of any numeric type; whole numbers at most :data:`MAX_WHOLE`.

    Returns:
        The only array in its own shape, or several flattened side by side, (N, elements).
    """
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0], np.float32)
    flat = [np.asarray(array, np.float32).reshape(len(array), -1) for array in arrays]
    return np.concatenate(flat, axis=1)


def unpack(packed: Floats, shapes: Sequence[Shape]) -> list[Floats]:
    """The arrays that :func:`pack` joined.

    Args:
        packed: N samples.
        shapes: of one sample of each array, its sample axis of 1 included.

    Raises:
        ValueError: the shapes do not add up to what is there.
    """
    flat = packed.reshape(len(packed), -1)
    sizes = [math.prod(shape[1:]) for shape in shapes]
    if sum(sizes) != flat.shape[1]:
        raise ValueError(f"{flat.shape[1]} elements do not make {list(shapes)}")
    starts = np.cumsum([0, *sizes])
    return [
        np.ascontiguousarray(flat[:, start : start + size]).reshape(-1, *shape[1:])
        for start, size, shape in zip(starts, sizes, shapes, strict=False)
    ]


def widths_of(shapes: Sequence[Shape]) -> tuple[int, ...]:
    """Elements of one sample of each array."""
    return tuple(math.prod(shape[1:]) for shape in shapes)


def to_channels_first(shape: Shape) -> Shape:
    """The (N, C, H, W) shape of an (N, H, W, C) one."""
    count, height, width, channels = shape
    return count, channels, height, width
