"""Unlabelled samples for everything that looks at activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from converters.data import calibration_set
from converters.distill.batches import distillation_steps
from converters.generic import example_arrays
from converters.loading import LoadedTask
from converters.packing import unpack
from converters.task import Floats
from edge_sdk.errors import TaskError

Batch = tuple[torch.Tensor, ...]
"""One tensor per input, samples first."""
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


def norms_of(module: nn.Module) -> list[Any]:
    """The layers that keep statistics of their inputs."""
    return [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    ]


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Let every BatchNorm use the batch's own statistics, leaving its kept ones alone."""
    norms = norms_of(module)
    kept = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
        norm.saved = norm.running_mean, norm.running_var
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (training, tracks) in zip(norms, kept, strict=True):
            norm.training, norm.track_running_stats = training, tracks
            norm.running_mean, norm.running_var = norm.saved
            del norm.saved


def recalibrate(module: nn.Module, batches: Sequence[Batch]) -> None:
    """BatchNorm statistics anew, the mean over batches; everything else stays in evaluation mode.

    Without it a narrowed network is useless: its channels have other means than the wide one's.
    """
    norms = norms_of(module)
    if not norms:
        return
    module.eval()
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    with torch.no_grad():
        for batch in batches:
            module(*batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum, norm.training = momentum, False
