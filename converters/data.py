"""Calibration and evaluation data: collected from the task, checked, bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.loading import LoadedTask
from converters.task import Floats, Integers
from converters.usercode import user_code
from edge_sdk.errors import TaskError

MAX_CALIBRATION = 512
"""Samples used for calibration; ranges settle long before."""
MAX_EVALUATION = 20_000
MAX_BYTES = 2 * 1024**3
"""Of one collected set; beyond this the host would swap instead of converting."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Held-out samples at one resolution."""

    inputs: Floats
    """(N, C, H, W) float32."""
    labels: Integers
    """(N,) class indexes."""


def calibration_set(task: LoadedTask, height: int, width: int) -> Floats:
    """Up to :data:`MAX_CALIBRATION` samples, (N, C, H, W) float32, finite, at least one.

    Raises:
        TaskError: ``task.bad-batch``, ``task.no-data``, ``task.user-code-failed``.
    """
    what = f"calibration({height}, {width})"
    parts: list[Floats] = []
    for index, batch in _batches(task, what, lambda: task.task.calibration(height, width)):
        parts.append(check_inputs(task, batch, height, width, f"batch {index} of {what}"))
        if sum(map(len, parts)) >= MAX_CALIBRATION:
            break
    return _joined(parts, what, task)[:MAX_CALIBRATION]


def evaluation_set(task: LoadedTask, height: int, width: int) -> Samples:
    """The held-out samples of one resolution.

    Raises:
        TaskError: ``task.bad-batch``, ``task.no-data``, ``task.user-code-failed``.
    """
    what = f"evaluation({height}, {width})"
    parts: list[Floats] = []
    labels: list[Integers] = []
    for index, pair in _batches(task, what, lambda: task.task.evaluation(height, width)):
        where = f"batch {index} of {what}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise bad_batch(task, where, "an (inputs, labels) pair", type(pair).__name__)
        parts.append(check_inputs(task, pair[0], height, width, where))
        labels.append(check_labels(task, pair[1], len(parts[-1]), where))
        if sum(map(len, parts)) > MAX_EVALUATION:
            raise bad_batch(task, what, f"at most {MAX_EVALUATION} samples", "more")
    return Samples(_joined(parts, what, task), np.concatenate(labels))


def check_inputs(task: LoadedTask, batch: Any, height: int, width: int, where: str) -> Floats:
    """One batch as a float32 array of the task's shape.

    Raises:
        TaskError: ``task.bad-batch`` naming what was expected and what was found.
    """
    array = _as_array(batch)
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
    found = _as_array(labels)
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


def bad_batch(task: LoadedTask, where: str, expected: str, found: str) -> TaskError:
    """The error for data of the wrong kind."""
    return TaskError(
        "bad-batch",
        f"{task.path.name}: {where} should be {expected}, but is {found}.",
        "Return what the protocol in converters/task.py describes; the resolution asked for is "
        "in the method's arguments.",
    )


def _batches(task: LoadedTask, what: str, make: Any) -> Iterator[tuple[int, Any]]:
    """Numbered batches; every step into the user's generator is guarded, ours are not."""
    with user_code(task.path, what):
        found = make()
    if not isinstance(found, Iterable):
        raise bad_batch(task, what, "an iterable of batches", type(found).__name__)
    iterator = iter(found)
    index = 0
    while True:
        with user_code(task.path, what):
            batch = next(iterator, _END)
        if batch is _END:
            return
        yield index, batch
        index += 1


_END = object()


def _as_array(value: Any) -> Any:
    """A numpy view of a tensor or array, else None."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu().numpy()
    return None


def _joined(parts: list[Floats], what: str, task: LoadedTask) -> Floats:
    if not parts:
        raise TaskError(
            "no-data",
            f"{task.path.name}: {what} yields no batch.",
            "Yield at least one batch; around a hundred samples calibrate well.",
        )
    if sum(part.nbytes for part in parts) > MAX_BYTES:
        raise bad_batch(task, what, f"at most {MAX_BYTES >> 30} GiB of samples", "more")
    return np.concatenate(parts)
