"""Whether one tensor is part of another: prefixes, channel groups, and near misses."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod

import numpy as np

from edge_sdk.recipes.build import Bytes, scale
from edge_sdk.recipes.parts import Part
from edge_sdk.recipes.program import MAX_COUNT, MAX_MULTIPLIER, Block, Scaled

Runs = list[tuple[int, int]]
"""(first index, count) of consecutive indexes, ascending."""

MAX_RUNS = 4096
"""A tensor in more pieces than this is no part of another."""
MIN_NEAR_BYTES = 64
_WORTH = 0.8
"""Corrections are taken when they pack this much better than the bytes themselves."""


def as_array(data: bytes, part: Part) -> Bytes:
    """A part as (*shape, itemsize) bytes."""
    flat: Bytes = np.frombuffer(data, np.uint8, part.length, part.offset)
    return flat.reshape((*part.shape, part.itemsize))


def exact_blocks(
    base: Part, whole: Bytes, wanted: Bytes, *, pieces: bool = True
) -> list[Block] | None:
    """Blocks of ``base`` that make ``wanted``, or None when it is no part of it.

    Along every axis but one the wanted indexes must be a prefix. Along that one they may be any
    runs: a layer behind a concatenation keeps the first channels of each of its sources, and one
    behind a flattened image those of each pixel.

    Args:
        base: where it lies.
        whole: its content, (*shape, itemsize) uint8.
        wanted: likewise, of the same rank.
        pieces: look for runs, too, which takes a while.
    """
    if not _fits_in(wanted, whole):
        return None
    prefix = whole[tuple(slice(size) for size in wanted.shape)]
    corner = (0,) * max(wanted.ndim - 2, 0)
    if np.array_equal(prefix[corner], wanted[corner]) and np.array_equal(prefix, wanted):
        return _blocks(base, [[(0, size)] for size in wanted.shape[:-1]])
    for axis in range(wanted.ndim - 1 if pieces else 0):
        if whole.shape[axis] > wanted.shape[axis]:
            runs = _runs_along(whole, wanted, axis)
            if runs is not None:
                kept = [[(0, size)] for size in wanted.shape[:-1]]
                kept[axis] = runs
                return _blocks(base, kept) or None
    return None


def near_block(base: Part, whole: Bytes, wanted: Bytes) -> tuple[Scaled, bytes] | None:
    """A scaled prefix of ``base`` and the corrections to it, where those pack clearly better.

    The multipliers are the least-squares fit per channel, for each axis that may be the channels'.

    Args:
        base: where it lies.
        whole: its content, (*shape, 1) uint8 holding int8 values.
        wanted: likewise.
    """
    if not _fits_in(wanted, whole) or wanted.shape[-1] != 1 or wanted.size < MIN_NEAR_BYTES:
        return None
    prefix = np.ascontiguousarray(whole[tuple(slice(size) for size in wanted.shape)]).reshape(-1)
    block = _blocks(base, [[(0, size)] for size in wanted.shape[:-1]])[0]
    found = []
    axes = {axis for axis in (0, wanted.ndim - 2) if wanted.shape[axis] <= MAX_COUNT}
    if not axes:
        return None
    for axis in axes:
        inner = prod(wanted.shape[axis + 1 :])
        multipliers = _fit(prefix, wanted, inner, wanted.shape[axis])
        corrections = wanted.reshape(-1) - scale(prefix, inner, multipliers)
        packed = len(zlib.compress(corrections.tobytes(), 1)) + len(multipliers)
        found.append((packed, Scaled(block, inner, multipliers), corrections.tobytes()))
    packed, best, literals = min(found, key=lambda each: each[0])
    if packed > _WORTH * len(zlib.compress(wanted.tobytes(), 1)):
        return None
    return best, literals


def _fit(prefix: Bytes, wanted: Bytes, inner: int, count: int) -> tuple[int, ...]:
    have, want = (
        array.reshape(-1).view(np.int8).reshape(-1, count, inner).astype(np.float64)
        for array in (prefix, wanted)
    )
    power = (have * have).sum((0, 2))
    ratios = (have * want).sum((0, 2)) / np.where(power == 0, 1, power)
    bounded = np.clip(np.rint(ratios * 65536), 0, MAX_MULTIPLIER)
    return tuple(int(each) for each in bounded)


def _fits_in(wanted: Bytes, whole: Bytes) -> bool:
    return whole.ndim == wanted.ndim and all(
        have >= want for have, want in zip(whole.shape, wanted.shape, strict=True)
    )


def _runs_along(whole: Bytes, wanted: Bytes, axis: int) -> Runs | None:
    """Which indexes of ``whole`` along ``axis`` the wanted ones are, the other axes cut."""
    cut = tuple(
        slice(None) if each == axis else slice(size) for each, size in enumerate(wanted.shape)
    )
    have, want = (_rows(array, axis) for array in (whole[cut], wanted))
    places: dict[bytes, int] = {}
    for index in reversed(range(len(have))):
        places[have[index]] = index
    runs: Runs = []
    for row in want:
        start, count = runs[-1] if runs else (0, 0)
        following = start + count
        if following < len(have) and have[following] == row:
            runs[-1:] = [(start, count + 1)]
        elif places.get(row, -1) >= following and len(runs) < MAX_RUNS:
            runs.append((places[row], 1))
        else:
            return None
    return runs


def _rows(array: Bytes, axis: int) -> list[bytes]:
    flat = np.ascontiguousarray(np.moveaxis(array, axis, 0))
    return [row.tobytes() for row in flat.reshape(len(flat), -1)]


def _blocks(base: Part, kept: Sequence[Runs]) -> list[Block]:
    """Blocks for the runs kept along each axis; empty where a few blocks cannot say it."""
    strides = [prod(base.shape[axis + 1 :]) * base.itemsize for axis in range(len(base.shape))]
    inner = max(
        (axis for axis, runs in enumerate(kept) if runs != [(0, base.shape[axis])]), default=-1
    )
    if inner < 0:
        return [Block(base.offset, ((0, base.length),))]
    outer = kept[:inner]
    first = outer[0] if outer else [(0, 1)]
    if any(len(runs) > 1 for runs in outer[1:]):
        return []
    segments = _segments(kept[inner], strides[inner])
    blocks = []
    for start, count in first:
        dims = [(count, strides[0])] if outer else []
        dims += [(runs[0][1], stride) for runs, stride in zip(outer[1:], strides[1:], strict=False)]
        offset = base.offset + (start * strides[0] if outer else 0)
        blocks.append(Block(offset, segments, tuple(_joined(dims))))
    return blocks


def _segments(runs: Runs, stride: int) -> tuple[tuple[int, int], ...]:
    segments, end = [], 0
    for start, count in runs:
        segments.append((start - end, count))
        end = start + count
    return tuple((skip * stride, count * stride) for skip, count in segments)


def _joined(dims: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Dimensions without those of one step, neighbours joined where they are one dimension."""
    joined: list[tuple[int, int]] = []
    for count, stride in dims:
        if joined and joined[-1][1] == count * stride:
            joined[-1] = (joined[-1][0] * count, stride)
        elif count > 1:
            joined.append((count, stride))
    return joined
