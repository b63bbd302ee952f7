"""One training step against a teacher."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from converters.distill.batches import Batch
from converters.distill.features import Pair, Watch
from converters.distill.losses import feature_loss, logit_loss, mask_loss
from converters.distill.settings import Settings
from converters.distill.teacher import Teacher
from converters.loading import LoadedTask
from converters.train import descend, finite_loss
from converters.usercode import user_code
from edge_sdk.errors import TaskError


@dataclass(frozen=True, slots=True)
class Lesson:
    """A student, its teacher, and what is compared; no teacher when it trains alone."""

    task: LoadedTask
    student: nn.Module
    teacher: Teacher | None
    pairs: tuple[Pair, ...]
    adapters: nn.ModuleList
    settings: Settings

    def loss(self, batch: Batch) -> torch.Tensor:
        """() what one batch costs.

        Raises:
            TaskError: ``task.not-labelled``, ``task.bad-loss``, ``task.user-code-failed``.
        """
        inputs, targets = batch
        if self.teacher is None:
            with user_code(self.task.path, "The module's forward"):
                answer = self.student(inputs)
            return self._own(answer, targets)
        mine, theirs = [pair.student for pair in self.pairs], [pair.teacher for pair in self.pairs]
        with ExitStack() as stack:
            seen = stack.enter_context(Watch(self.student, mine))
            shown = stack.enter_context(Watch(self.teacher.module, theirs))
            with user_code(self.task.path, "The student's or teacher's forward"):
                answer = self.student(inputs)
                with torch.no_grad():
                    wanted = self.teacher(inputs)
        total = self._taught(answer, wanted, seen, shown)
        if targets is None or self.settings.hard == 0 or not hasattr(self.task.task, "loss"):
            return total
        share = self.settings.hard
        return (1 - share) * total + share * self._own(answer, targets)

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [*self.student.parameters(), *self.adapters.parameters()]

    def _own(self, answer: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
        if targets is None:
            raise TaskError(
                "not-labelled",
                f"{self.task.path.name}: training() yields inputs without targets.",
                "Distil without comparison (--no-alone), or yield (inputs, targets).",
            )
        with user_code(self.task.path, "loss()"):
            loss: torch.Tensor = self.task.task.loss(answer, targets)
        finite_loss(self.task, loss)
        return loss

    def _taught(
        self, answer: torch.Tensor, wanted: torch.Tensor, seen: Watch, shown: Watch
    ) -> torch.Tensor:
        total = answer.new_zeros(())
        if "logit" in self.settings.losses:
            total = total + logit_loss(answer, wanted, self.settings.temperature)
        if "mask" in self.settings.losses:
            total = total + mask_loss(answer, wanted)
        for pair, adapter in zip(self.pairs, self.adapters, strict=True):
            adapted = adapter(seen.outputs[pair.student])
            total = total + feature_loss(adapted, shown.outputs[pair.teacher])
        return total


def epoch(
    lesson: Lesson, optimizer: torch.optim.Optimizer, steps: Iterable[tuple[Batch, ...]]
) -> float:
    """One pass; the mean loss.

    Raises:
        TaskError: ``task.no-data`` and those of :meth:`Lesson.loss`.
    """
    lesson.student.train()
    clipped = [lesson.parameters()]
    return descend(lesson.task, optimizer, clipped, steps, lambda step: map(lesson.loss, step))
