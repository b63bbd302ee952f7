"""Batches to distil on: labelled ones of ``training``, or inputs alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from converters.batches import as_array, bad_batch
from converters.data import calibration_set, check_inputs
from converters.loading import LoadedTask
from converters.train import training_steps

_BATCH = 32

Batch = tuple[torch.Tensor, torch.Tensor | None]
"""Inputs (N, C, H, W) float32, and targets where there are any."""


def is_labelled(task: LoadedTask) -> bool:
    """Whether the task can be trained on labels."""
    return hasattr(task.task, "training") and hasattr(task.task, "loss")


def distillation_steps(task: LoadedTask, seed: int) -> Iterator[tuple[Batch, ...]]:
    """One epoch of steps; each has the same batch at every resolution.

    ``training`` may yield (inputs, targets) or inputs alone. A task without it is distilled on its
    calibration samples, in an order that the seed decides.

    Raises:
        TaskError: ``task.no-data``, ``task.bad-batch``, ``task.user-code-failed``.
    """
    if not hasattr(task.task, "training"):
        yield from _calibration_steps(task, seed)
        return
    for step in training_steps(task, seed):
        yield tuple(
            _split(task, batch, height, width)
            for batch, (height, width) in zip(step, task.resolutions, strict=True)
        )


def _split(task: LoadedTask, batch: Any, height: int, width: int) -> Batch:
    labelled = isinstance(batch, tuple | list) and len(batch) == 2
    inputs, targets = batch if labelled else (batch, None)
    where = f"a batch of training({height}, {width})"
    if task.kind == "classification":
        return torch.from_numpy(check_inputs(task, inputs, height, width, where)), targets
    array = as_array(inputs)
    if array is None or array.dtype != np.float32 or not np.isfinite(array).all():
        raise bad_batch(task, where, "finite float32 inputs", type(inputs).__name__)
    return torch.from_numpy(np.ascontiguousarray(array)), targets


def _calibration_steps(task: LoadedTask, seed: int) -> Iterator[tuple[Batch, ...]]:
    sets = [torch.from_numpy(calibration_set(task, h, w)) for h, w in task.resolutions]
    count = min(len(samples) for samples in sets)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for start in range(0, count, _BATCH):
        chosen = order[start : start + _BATCH]
        yield tuple((samples[chosen], None) for samples in sets)
