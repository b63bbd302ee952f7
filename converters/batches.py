"""Walking through what a user's data methods yield, with every step into their code guarded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.loading import LoadedTask
from converters.usercode import LIMIT_S, user_code
from edge_sdk.errors import TaskError

MAX_BYTES = 2 * 1024**3
"""Of one collected set; beyond this the host would swap instead of converting."""

Array = npt.NDArray[Any]
_END = object()


def bad_batch(task: LoadedTask, where: str, expected: str, found: str) -> TaskError:
    """The error for data of the wrong kind."""
    return TaskError(
        "bad-batch",
        f"{task.path.name}: {where} should be {expected}, but is {found}.",
        "Return what the protocol in converters/task.py describes; the resolution asked for is "
        "in the method's arguments.",
    )


def batches(task: LoadedTask, what: str, make: Any) -> Iterator[tuple[int, Any]]:
    """Numbered batches; every step into the user's generator is guarded, ours are not."""
    with user_code(task.path, what, limit_s=LIMIT_S):
        found = make()
    if not isinstance(found, Iterable):
        raise bad_batch(task, what, "an iterable of batches", type(found).__name__)
    with user_code(task.path, what, limit_s=LIMIT_S):
        iterator = iter(found)
    index = 0
    while True:
        with user_code(task.path, what, limit_s=LIMIT_S):
            batch = next(iterator, _END)
        if batch is _END:
            return
        yield index, batch
        index += 1


def as_array(value: Any) -> Any:
    """A numpy view of a tensor or array, else None."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return value.detach().cpu().numpy()
    return None


def joined(parts: list[npt.NDArray[np.float32]], what: str, task: LoadedTask) -> Any:
    """All batches as one array.

    Raises:
        TaskError: ``task.no-data`` or ``task.bad-batch``.
    """
    if not parts:
        raise TaskError(
            "no-data",
            f"{task.path.name}: {what} yields no batch.",
            "Yield at least one batch; around a hundred samples calibrate well.",
        )
    if sum(part.nbytes for part in parts) > MAX_BYTES:
        raise bad_batch(task, what, f"at most {MAX_BYTES >> 30} GiB of samples", "more")
    return np.concatenate(parts)
