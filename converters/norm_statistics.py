"""The statistics that BatchNorm layers keep: taken anew, or not used for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Batch = tuple[torch.Tensor, ...]
"""One tensor per input, samples first."""


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


def recalibrate(module: nn.Module, batches: Iterable[Batch]) -> None:
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
