"""Calibration and evaluation data: collected from the task, checked, bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.batches import as_array, bad_batch, batches, joined
from converters.generic import collect
from converters.loading import LoadedTask
from converters.task import Floats, Integers

__all__ = [
    "MAX_CALIBRATION",
    "MAX_EVALUATION",
    "Samples",
    "bad_batch",
    "calibration_set",
    "check_inputs",
    "check_labels",
    "evaluation_set",
]

MAX_CALIBRATION = 512
"""Samples used for calibration; ranges settle long before."""
MAX_EVALUATION = 20_000


@dataclass(frozen=True, slots=True)
class Samples:
    """Held-out samples at one resolution."""

    inputs: Floats
    """(N, C, H, W) float32; packed (see :mod:`converters.packing`) for a ``generic`` task."""
    labels: Integers
    """(N,) class indexes; zeros for a ``generic`` task."""


def calibration_set(task: LoadedTask, height: int, width: int) -> Floats:
    """Up to :data:`MAX_CALIBRATION` samples, (N, C, H, W) float32, finite, at least one.

    Those of a ``generic`` task are packed, see :mod:`converters.packing`.

    Raises:
        TaskError: ``task.bad-batch``, ``task.no-data``, ``task.user-code-failed``.
    """
    if task.kind == "generic":
        return collect(task, "calibration", height, width, most=MAX_CALIBRATION, cut=True)
    what = f"calibration({height}, {width})"
    parts: list[Floats] = []
    for index, batch in batches(task, what, lambda: task.task.calibration(height, width)):
        parts.append(check_inputs(task, batch, height, width, f"batch {index} of {what}"))
        if sum(map(len, parts)) >= MAX_CALIBRATION:
            break
    found: Floats = joined(parts, what, task)
    return found[:MAX_CALIBRATION]


def evaluation_set(task: LoadedTask, height: int, width: int) -> Samples:
    """The held-out samples of one resolution.

    Raises:
        TaskError: ``task.bad-batch``, ``task.no-data``, ``task.user-code-failed``.
    """
    if task.kind == "generic":
        packed = collect(task, "evaluation", height, width, most=MAX_EVALUATION, cut=False)
        return Samples(packed, np.zeros(len(packed), np.int64))
    what = f"evaluation({height}, {width})"
    parts: list[Floats] = []
    labels: list[Integers] = []
    for index, pair in batches(task, what, lambda: task.task.evaluation(height, width)):
        where = f"batch {index} of {what}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise bad_batch(task, where, "an (inputs, labels) pair", type(pair).__name__)
        parts.append(check_inputs(task, pair[0], height, width, where))
        labels.append(check_labels(task, pair[1], len(parts[-1]), where))
        if sum(map(len, parts)) > MAX_EVALUATION:
            raise bad_batch(task, what, f"at most {MAX_EVALUATION} samples", "more")
    return Samples(joined(parts, what, task), np.concatenate(labels))


def check_inputs(task: LoadedTask, batch: Any, height: int, width: int, where: str) -> Floats:
    """One batch as a float32 array of the task's shape.

    Raises:
        TaskError: ``task.bad-batch`` naming what was expected and what was found.
    """
    array = as_array(batch)
    if array is None:
        raise bad_batch(task, where, "a torch tensor or numpy array", type(batch).__name__)
    expected = f"(N, {task.channels}, {height}, {width}) float32"
    if array.ndim != 4 or array.shape[1:] != (task.channels, height, width):
        raise bad_batch(task, where, expected, f"shape {tuple(array.shape)}")
    if array.dtype != np.float32:
        raise bad_batch(task, where, expected, f"dtype {array.dtype}")
    if len(array) == 0:
        raise bad_batch(task, where, "at least one sample", "an empty batch")
    if not np.isfinite(array).all():
        raise bad_batch(task, where, "finite numbers", "NaN or infinity")
    return np.ascontiguousarray(array)


def check_labels(task: LoadedTask, labels: Any, count: int, where: str) -> Integers:
    """Class indexes (count,) int64 within the task's labels.

    Raises:
        TaskError: ``task.bad-batch``.
    """
    found = as_array(labels)
    array = np.asarray(labels) if found is None else found
    expected = f"{count} whole-number class indexes"
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise bad_batch(task, where, expected, f"shape {array.shape}, dtype {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= len(task.labels)):
        raise bad_batch(
            task,
            where,
            f"class indexes 0 to {len(task.labels) - 1}",
            f"{array.min()} to {array.max()}",
        )
    return array.astype(np.int64)
