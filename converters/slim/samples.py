"""Unlabelled samples for everything that looks at activations."""

from __future__ import annotations

import torch

from converters.data import calibration_set
from converters.distill.batches import distillation_steps
from converters.generic import example_arrays
from converters.loading import LoadedTask
from converters.norm_statistics import Batch
from converters.packing import unpack
from converters.task import Floats
from edge_sdk.errors import TaskError

BATCH = 64
MAX_BYTES = 256 * 1024**2
"""Of samples kept in memory."""


def sample_batches(task: LoadedTask, most: int, *, training: bool) -> list[Batch]:
    """Samples at every resolution, the full one first, in batches.

    Args:
        task: whose data is asked.
        most: samples per resolution.
        training: take inputs of ``training`` where a classification has it; there are more of
            them than of ``calibration``, and statistics of few samples are worth little.

    Raises:
        TaskError: as :func:`converters.data.calibration_set` and ``training_steps``.
    """
    if training and task.kind == "classification" and hasattr(task.task, "training"):
        return _training_batches(task, most)
    found: list[Batch] = []
    for height, width in task.resolutions:
        samples = calibration_set(task, height, width)[:most]
        whole = _tensors(task, samples, height, width)
        found += [tuple(t[i : i + BATCH] for t in whole) for i in range(0, len(samples), BATCH)]
    return found


def _training_batches(task: LoadedTask, most: int) -> list[Batch]:
    by_size: list[list[torch.Tensor]] = [[] for _ in task.resolutions]
    count, held = 0, 0
    for step in distillation_steps(task, 0):
        for place, (inputs, _) in zip(by_size, step, strict=True):
            place.append(inputs)
            held += inputs.nbytes
        count += len(step[0][0])
        if count >= most or held >= MAX_BYTES:
            break
    if count == 0:
        raise TaskError(
            "no-data", f"{task.path.name}: training() yields no batch.", "Yield at least one."
        )
    wholes = [torch.cat(place)[:most] for place in by_size]
    return [(whole[i : i + BATCH],) for whole in wholes for i in range(0, len(whole), BATCH)]


def _tensors(task: LoadedTask, samples: Floats, height: int, width: int) -> Batch:
    if task.kind != "generic":
        return (torch.from_numpy(samples),)
    like = [torch.from_numpy(array) for array in example_arrays(task, height, width)]
    parts = unpack(samples, [tuple(one.shape) for one in like])
    return tuple(
        torch.from_numpy(part.copy()).to(one.dtype) for part, one in zip(parts, like, strict=True)
    )
