"""Training all widths together: the sandwich rule with in-place distillation.

Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques" (ICCV 2019): each
step runs the widest, the narrowest and one width between; the widest learns from the labels, the
others from the widest one's answer. Without labels the wide network stays as it is, and the
narrower ones learn what is their own from it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from converters.distill.batches import is_labelled
from converters.distill.losses import logit_loss
from converters.loading import LoadedTask
from converters.norm_statistics import Batch
from converters.purity import flat_outputs
from converters.slim.network import FULL, SlimNetwork
from converters.slim.settings import Settings
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


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished epoch."""

    number: int
    epochs: int
    loss: float
    accuracy: dict[str, float]
    """On the held-out set at the full resolution, by width."""
    seconds: float


class Trainer:
    """Epochs over a network of several widths.

    Args:
        task: whose data and loss are used.
        network: changed.
        settings: of the run.
        samples: unlabelled batches, for recalibration and where there are no labels.
        teacher: the network as it came, frozen; separate widths learn from it.
    """

    def __init__(
        self,
        task: LoadedTask,
        network: SlimNetwork,
        settings: Settings,
        samples: list[Batch],
        teacher: nn.Module,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._task, self._network, self._settings = task, network, settings
        self._samples = samples
        self._teacher = teacher.eval()
        self.labelled = settings.labels and is_labelled(task) and task.kind == "classification"
        self._frozen = settings.separate or not self.labelled
        trained = network.widths[1:] if self._frozen else network.widths
        apart = [[width] for width in trained] if settings.separate else [trained]
        self._clipped = [network.parameters(widths=widths) for widths in apart]
        """Gradients whose size is bounded together: networks of their own do not meet."""
        parameters = network.parameters(widths=trained)
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)
        own = float(getattr(task.task, "learning_rate", DEFAULT_LEARNING_RATE))
        self._rate = settings.learning_rate or own

    def epoch(self, number: int, epochs: int) -> float:
        """One pass over the data; the mean loss per width and step.

        Raises:
            TaskError: ``task.bad-loss``, ``task.no-data``, ``task.user-code-failed``.
        """
        draw = random.Random(f"{self._settings.seed}-{number}")
        set_rate(self.optimizer, self._rate * cosine(number - 1, epochs))
        self._move(self.device)
        try:
            self._mode(training=True)
            return descend(
                self._task,
                self.optimizer,
                self._clipped,
                self._batches(number),
                lambda batch: self._losses(batch, self._sandwich(draw)),
            )
        finally:
            self._mode(training=False)
            self._move(torch.device("cpu"))

    def _sandwich(self, draw: random.Random) -> list[float]:
        """The narrower widths of a step: the narrowest, and one at random of those between."""
        narrower = list(self._network.widths[1:])
        if self._settings.separate:
            return narrower
        return [*([draw.choice(narrower[:-1])] if len(narrower) > 1 else []), narrower[-1]]

    def _losses(self, batch: tuple[Batch, Any], widths: list[float]) -> Iterator[torch.Tensor]:
        inputs, targets = batch
        inputs = tuple(part.to(self.device) for part in inputs)
        targets = targets.to(self.device) if isinstance(targets, torch.Tensor) else targets
        if self._frozen:
            with torch.no_grad(), self._forward():
                wanted = self._teacher(*inputs)
        else:
            with self._forward():
                wanted = self._network.forward(FULL, inputs)
            with user_code(self._task.path, "loss()"):
                loss = self._task.task.loss(_float32(wanted), targets)
            yield loss
        for width in widths:
            yield self._narrow_loss(width, inputs, targets, _float32(wanted))

    def _narrow_loss(self, width: float, inputs: Batch, targets: Any, wanted: Any) -> torch.Tensor:
        with self._forward():
            answer = self._network.forward(width, inputs)
        answer = _float32(answer)
        taught = _likeness(answer, wanted, self._task.kind, self._settings.temperature)
        if not (self._settings.separate and self.labelled):
            return taught
        with user_code(self._task.path, "loss()"):
            hard: torch.Tensor = self._task.task.loss(answer, targets)
        return (1 - self._settings.hard) * taught + self._settings.hard * hard

    @contextmanager
    def _forward(self) -> Iterator[None]:
        low = torch.autocast(self.device.type, torch.bfloat16, enabled=self._settings.bfloat16)
        with low, user_code(self._task.path, "The module's forward"):
            yield

    def _batches(self, number: int) -> Iterator[tuple[Batch, Any]]:
        seed = self._settings.seed * MAX_EPOCHS + number
        if not self.labelled:
            order = torch.randperm(
                len(self._samples), generator=torch.Generator().manual_seed(seed)
            )
            yield from ((self._samples[index], None) for index in order.tolist())
            return
        for step in training_steps(self._task, seed):
            yield from (((inputs,), targets) for inputs, targets in step)

    def _mode(self, *, training: bool) -> None:
        self._network.train(training)
        if self._frozen:
            self._network.module.eval()

    def _move(self, device: torch.device) -> None:
        if self.device.type == "cpu":
            return
        for module in (self._network.module, self._teacher, *self._network.narrower.values()):
            module.to(device)
        move_state(self.optimizer, device)


def _float32(answer: Any) -> Any:
    """An answer as losses want it."""
    if type(answer) in (tuple, list):
        return type(answer)(map(_float32, answer))
    low = isinstance(answer, torch.Tensor) and answer.dtype == torch.bfloat16
    return answer.float() if low else answer


def _likeness(answer: Any, wanted: Any, kind: str, temperature: float) -> torch.Tensor:
    """Distance of an answer from the wide network's, which carries no gradient."""
    if kind == "classification":
        return logit_loss(answer, wanted.detach(), temperature)
    losses = [
        (one - other.detach()).square().mean() / other.detach().var(correction=0).clamp_min(1e-6)
        for one, other in zip(flat_outputs(answer), flat_outputs(wanted), strict=True)
    ]
    return torch.stack(losses).mean()
