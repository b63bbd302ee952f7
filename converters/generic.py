"""Data of a task of kind ``generic``: any number of inputs, whole numbers among them, no labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.batches import Array, as_array, bad_batch, batches, joined
from converters.loading import LoadedTask
from converters.packing import MAX_WHOLE, pack
from converters.task import Floats
from converters.usercode import LIMIT_S, user_code

MAX_INPUTS = 32
_KINDS = "float32, or whole numbers up to 2**24"


def example_arrays(task: LoadedTask, height: int, width: int) -> tuple[Array, ...]:
    """The example input as one array (1, ...) per input.

    Raises:
        TaskError: ``task.bad-batch``, ``task.user-code-failed``.
    """
    where = f"example_input({height}, {width})"
    with user_code(task.path, where, limit_s=LIMIT_S):
        found = task.task.example_input(height, width)
    parts = found if isinstance(found, tuple | list) else (found,)
    if not 1 <= len(parts) <= MAX_INPUTS:
        raise bad_batch(task, where, f"1 to {MAX_INPUTS} inputs", str(len(parts)))
    arrays = tuple(
        _checked(task, part, f"input {index} of {where}") for index, part in enumerate(parts)
    )
    for index, array in enumerate(arrays):
        if array.ndim < 2 or len(array) != 1:
            raise bad_batch(
                task, f"input {index} of {where}", "one sample, (1, ...)", f"shape {array.shape}"
            )
    return arrays


def collect(
    task: LoadedTask, method: str, height: int, width: int, *, most: int, cut: bool
) -> Floats:
    """Samples of ``calibration`` or ``evaluation``, packed (see :mod:`converters.packing`).

    Args:
        task: of kind ``generic``.
        method: name of the task's method.
        height: pixels, or what the task makes of it.
        width: likewise.
        most: number of samples.
        cut: leave samples over ``most`` out instead of refusing them.

    Raises:
        TaskError: ``task.bad-batch``, ``task.no-data``, ``task.user-code-failed``.
    """
    what = f"{method}({height}, {width})"
    example = example_arrays(task, height, width)
    parts: list[Floats] = []
    for index, batch in batches(task, what, lambda: getattr(task.task, method)(height, width)):
        where = f"batch {index} of {what}"
        parts.append(pack(check_batch(task, batch, example, where)))
        if sum(map(len, parts)) > most:
            if not cut:
                raise bad_batch(task, what, f"at most {most} samples", "more")
            break
    found: Floats = joined(parts, what, task)
    return found[:most]


def check_batch(
    task: LoadedTask, batch: Any, example: tuple[Array, ...], where: str
) -> tuple[Array, ...]:
    """One batch as arrays (N, ...) alike the example's.

    Raises:
        TaskError: ``task.bad-batch`` naming the input, what was expected and what was found.
    """
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    if len(parts) != len(example):
        raise bad_batch(task, where, f"{len(example)} inputs as in example_input", str(len(parts)))
    arrays: list[Array] = []
    for index, (part, like) in enumerate(zip(parts, example, strict=True)):
        name = where if len(example) == 1 else f"input {index} of {where}"
        array = _checked(task, part, name)
        expected = f"{('N', *like.shape[1:])} {like.dtype}".replace("'", "")
        if array.shape[1:] != like.shape[1:] or array.ndim == 0:
            raise bad_batch(task, name, expected, f"shape {array.shape}")
        if array.dtype != like.dtype:
            raise bad_batch(task, name, expected, f"dtype {array.dtype}")
        if len(array) == 0:
            raise bad_batch(task, name, "at least one sample", "an empty batch")
        if len(array) != len(arrays[0] if arrays else array):
            raise bad_batch(task, name, f"{len(arrays[0])} samples", f"{len(array)}")
        arrays.append(array)
    return tuple(arrays)


def _checked(task: LoadedTask, part: Any, where: str) -> Array:
    array = as_array(part)
    if array is None:
        raise bad_batch(task, where, "a torch tensor or numpy array", type(part).__name__)
    found: Array = array
    if found.dtype.kind == "c":
        raise bad_batch(
            task, where, f"{_KINDS} (give real and imaginary part apart)", f"dtype {found.dtype}"
        )
    if found.dtype != np.float32 and found.dtype.kind not in "iu":
        raise bad_batch(task, where, _KINDS, f"dtype {found.dtype}")
    if found.dtype.kind in "iu" and found.size and np.abs(found).max() > MAX_WHOLE:
        raise bad_batch(task, where, _KINDS, "larger")
    if not np.isfinite(found).all():
        raise bad_batch(task, where, "finite numbers", "NaN or infinity")
    return np.ascontiguousarray(found)
