"""Progressive shrinking: the full network first, then ever more of its sub-networks with it.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment" (ICLR
2020): kernels and resolutions become elastic first, then depth, then width, whose channels are
sorted by importance before. Each step runs the full network, the smallest sub-network of the phase
and one at random; the full one learns from the labels, the others also from its answer (in-place
distillation, Yu and Huang, ICCV 2019).

The last phase trains what the search will choose from, sub-networks that fill a budget, and nothing
smaller: most of a space is far under any budget, and training it is at their expense (You et al.,
"GreedyNAS", CVPR 2020, drop weak paths for that reason).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from converters.distill.losses import logit_loss
from converters.loading import LoadedTask
from converters.norm_statistics import Batch
from converters.slim.importance import importance, ranking
from converters.slim.narrow import permute
from converters.supernet.network import Supernet
from converters.supernet.space import KINDS, Genes, Kind
from converters.train import (
    DEFAULT_LEARNING_RATE,
    MAX_EPOCHS,
    cosine,
    descend,
    move_state,
    set_rate,
    training_steps,
)
from converters.usercode import user_code

_HARD = 0.5
"""Share of the labels in a sub-network's loss."""
_TEMPERATURE = 2.0
_LATER_RATE = 0.5
"""Of the learning rate, once there are sub-networks."""
BUDGET = "budget"
_PHASES: tuple[tuple[str, tuple[Kind, ...], float], ...] = (
    ("full", (), 1.0),
    ("kernel", ("resolution", "kernel"), 0.25),
    ("depth", ("resolution", "kernel", "depth"), 0.25),
    ("width", KINDS, 0.5),
    (BUDGET, KINDS, 2.0),
)
"""Name, what is elastic, and epochs as a share of the task's."""


def clock() -> float:
    """Seconds of this process's own computing; of the wall where a GPU computes.

    A busy machine would make what ran while it was busy look expensive.
    """
    return time.monotonic() if torch.cuda.is_available() else time.process_time()


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs with the same freedom."""

    name: str
    kinds: tuple[Kind, ...]
    epochs: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch."""

    phase: str
    number: int
    """From 1, within the phase."""
    epochs: int
    loss: float
    seconds: float


def phases_of(network: Supernet, epochs: int, *, trained: bool) -> list[Phase]:
    """The phases that have something new.

    Args:
        network: whose axes decide.
        epochs: in which the full network alone is trained.
        trained: the full network is; its phase is left out.
    """
    found: list[Phase] = []
    seen: set[str] = set()
    for name, kinds, share in _PHASES:
        new = {axis.kind for axis in network.space.axes if axis.kind in kinds}
        if (name == "full" and not trained) or new - seen or name == BUDGET:
            found.append(Phase(name, kinds, max(1, round(epochs * share))))
        seen |= new
    return found


class Trainer:
    """Trains a supernet in place.

    Args:
        task: whose data and loss are used.
        network: changed.
        samples: unlabelled batches that rank the channels.
        fitting: sub-networks that fill the budgets, for the last phase.
        seed: of the order of the data and the choice of sub-networks.
    """

    def __init__(
        self,
        task: LoadedTask,
        network: Supernet,
        samples: Sequence[Batch],
        fitting: Sequence[Genes],
        seed: int,
    ) -> None:
        self._task, self._network, self._samples, self._seed = task, network, samples, seed
        self._fitting = fitting
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._epochs = 0
        self._full_seconds = 0.0

    @property
    def full_seconds(self) -> float:
        """What the full network's own part of an epoch took on average."""
        return self._full_seconds / max(1, self._epochs)

    def run(self, phases: Sequence[Phase], report: Callable[[Epoch], None]) -> None:
        """Train all phases.

        Raises:
            TaskError: ``task.bad-loss``, ``task.no-data``, ``task.user-code-failed``.
        """
        module = self._network.module.requires_grad_(True)
        own = float(getattr(self._task.task, "learning_rate", DEFAULT_LEARNING_RATE))
        for phase in phases:
            if phase.name == "width":
                self._sort()
            rate = own if phase.name == "full" else own * _LATER_RATE
            optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-2)
            for number in range(1, phase.epochs + 1):
                started = clock()
                set_rate(optimizer, rate * cosine(number - 1, phase.epochs))
                loss = self._epoch(phase, optimizer)
                seconds = clock() - started
                report(Epoch(phase.name, number, phase.epochs, loss, seconds))
        module.requires_grad_(False).eval()

    def _sort(self) -> None:
        """The most important channels first, which changes nothing yet."""
        module, groups = self._network.module.eval(), self._network.groups
        with torch.no_grad():
            scores = importance(module, groups, "activation", self._samples, None)
        permute(module, ranking(scores), groups)

    def _epoch(self, phase: Phase, optimizer: Any) -> float:
        self._epochs += 1
        draw = random.Random(f"{self._seed}-{self._epochs}")
        module = self._network.module.to(self._device).train()
        move_state(optimizer, self._device)
        steps = training_steps(self._task, self._seed * MAX_EPOCHS + self._epochs)
        try:
            return descend(
                self._task,
                optimizer,
                [list(module.parameters())],
                steps,
                lambda step: self._losses(step, self._chosen(phase, draw)),
            )
        finally:
            module.to("cpu").eval()
            move_state(optimizer, torch.device("cpu"))

    def _losses(self, step: tuple[Any, ...], chosen: list[Genes]) -> Iterator[torch.Tensor]:
        batches = [(x.to(self._device), y.to(self._device)) for x, y in step]
        started = clock()
        inputs, targets = batches[0]
        with user_code(self._task.path, "The module's forward or loss()"):
            wanted = self._network.module(inputs)
            loss = self._task.task.loss(wanted, targets)
        yield loss
        self._full_seconds += clock() - started
        for genes in chosen:
            inputs, targets = batches[self._network.resolution(genes)]
            with user_code(self._task.path, "The module's forward or loss()"):
                loss = self._small_loss(genes, inputs, targets, wanted.detach())
            yield loss

    def _chosen(self, phase: Phase, draw: random.Random) -> list[Genes]:
        if not phase.kinds:
            return []
        if phase.name == BUDGET:
            return [draw.choice(self._fitting)]
        space = self._network.space
        return [space.smallest(phase.kinds), space.drawn(draw, phase.kinds)]

    def _small_loss(
        self, genes: Genes, inputs: torch.Tensor, targets: Any, wanted: torch.Tensor
    ) -> torch.Tensor:
        answer = self._network.forward(genes, (inputs,))
        hard: torch.Tensor = self._task.task.loss(answer, targets)
        return _HARD * hard + (1 - _HARD) * logit_loss(answer, wanted, _TEMPERATURE)
