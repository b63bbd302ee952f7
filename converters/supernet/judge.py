"""How good a sub-network is: its BatchNorm statistics anew, then held-out samples."""

from __future__ import annotations

import torch
from torch import nn

from converters.data import Samples, calibration_set, evaluation_set
from converters.loading import LoadedTask
from converters.module import reference_outputs
from converters.norm_statistics import Batch, recalibrate
from converters.slim.samples import BATCH
from converters.supernet.network import Supernet
from converters.supernet.search import Quality
from converters.supernet.space import Genes
from converters.task import score_of
from converters.usercode import user_code

_CALIBRATION = 256
"""Samples that fix the statistics of a candidate."""


class Judge:
    """Measures sub-networks on one half of the held-out samples; the other half is for reports.

    What a search chose for its accuracy on some samples is flattered by them.

    Args:
        task: whose data is used.
        network: whose sub-networks are measured.
    """

    def __init__(self, task: LoadedTask, network: Supernet) -> None:
        self._task, self._network = task, network
        self.samples = [_batches(task, height, width) for height, width in task.resolutions]
        """Unlabelled, by resolution."""
        self._held_out = [evaluation_set(task, height, width) for height, width in task.resolutions]
        self._known: dict[Genes, Quality] = {}

    @property
    def measured(self) -> tuple[Genes, ...]:
        """Every sub-network that was compared."""
        return tuple(self._known)

    @property
    def reported_samples(self) -> int:
        """Held-out samples that the search never sees."""
        return len(_half(self._held_out[0], 1).labels)

    def forget(self) -> None:
        """The weights have changed."""
        self._known.clear()

    def module(self, genes: Genes) -> nn.Module:
        """A sub-network with statistics of its own."""
        small = self._network.build(genes).requires_grad_(False)
        recalibrate(small, self.samples[self._network.resolution(genes)])
        return small.eval()

    def quality(self, genes: Genes) -> Quality:
        """Accuracy and minus the loss on the half that the search looks at."""
        if genes not in self._known:
            size = self._network.resolution(genes)
            self._known[genes] = self._measure(self.module(genes), size, 0)
        return self._known[genes]

    def reported(self, module: nn.Module, size: int = 0) -> float:
        """Accuracy of a module on the half that the search never saw."""
        return self._measure(module, size, 1)[0]

    def _measure(self, module: nn.Module, size: int, half: int) -> Quality:
        samples = _half(self._held_out[size], half)
        outputs = reference_outputs(self._task, module, samples.inputs)
        with user_code(self._task.path, "loss() or score()"):
            loss = self._task.task.loss(torch.from_numpy(outputs), torch.from_numpy(samples.labels))
            return score_of(self._task.task, outputs, samples.labels), -float(loss)


def _half(samples: Samples, half: int) -> Samples:
    if len(samples.labels) < 2:
        return samples
    return Samples(samples.inputs[half::2], samples.labels[half::2])


def _batches(task: LoadedTask, height: int, width: int) -> list[Batch]:
    samples = torch.from_numpy(calibration_set(task, height, width)[:_CALIBRATION])
    return [(part,) for part in torch.split(samples, BATCH)]
