"""Distillation of a student from a teacher, epoch by epoch, resumable exactly.

Two stages train from the same initial weights on the same batches: ``alone`` on the labels only,
for comparison, then ``distilled`` against the teacher. After every epoch the whole state goes into
a checkpoint, random generators included, so that a resumed run ends with the very same weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from converters.checkpoint import (
    Form,
    bad_checkpoint,
    load_state,
    restore_random,
    save_state,
    seed_all,
)
from converters.data import evaluation_set
from converters.distill.batches import distillation_steps, is_labelled
from converters.distill.features import Pair, adapters, choose_pairs
from converters.distill.losses import mask_overlap
from converters.distill.settings import Settings
from converters.distill.step import Lesson, epoch
from converters.distill.teacher import (
    Teacher,
    check_answers,
    doubts_about,
    load_teacher,
    named_network,
    refuse_same_network,
    split_reference,
)
from converters.loading import LoadedTask
from converters.module import build_module, check_examples
from converters.task import Floats
from converters.train import (
    DEFAULT_LEARNING_RATE,
    MAX_EPOCHS,
    accuracy_on,
    calm_threads,
    cosine,
    set_rate,
)
from edge_sdk.durable import Storage
from edge_sdk.errors import TaskError, UsageError

ALONE, DISTILLED = "alone", "distilled"
DEFAULT_EPOCHS = 10
_SCORED = 64
"""Samples scored at once."""
CHECKPOINT_SUFFIX = ".distill"
FORM = Form("edge-distill-2", "edge model distill")


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished epoch of a stage."""

    stage: str
    number: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Distilled:
    """A distilled student and what it is worth."""

    student: nn.Module
    measure: str
    """What the accuracies are: ``accuracy`` on labels, or ``agreement`` with the teacher."""
    teacher: float
    alone: float | None
    """Of the student trained without the teacher; None when that was not asked for."""
    distilled: float
    accuracy: dict[str, float]
    """Of the distilled student, by resolution."""
    pairs: tuple[Pair, ...]
    history: tuple[Progress, ...]


def distill(
    task: LoadedTask,
    teacher_ref: str,
    *,
    settings: Settings,
    checkpoint: Path,
    weights: Path | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda text: None,
    storage: Storage | None = None,
) -> Distilled:
    """Train a student against a teacher.

    Args:
        task: of the student. Labelled batches come from ``training``; without it the calibration
            samples are used, unlabelled.
        teacher_ref: ``path.py:Class`` or ``path.py:Class:weights.pt``.
        settings: losses and their weights.
        checkpoint: written after every epoch, deleted by the caller once the result is safe.
        weights: of the student to start from; None: those of ``build()``.
        resume: go on from ``checkpoint``.
        report: called after every epoch.
        warn: told before training what makes it doubtful.
        storage: the disk; a power-cut test brings its own.

    Raises:
        TaskError: ``task.teacher-mismatch``, ``task.no-data``, ``task.not-labelled``,
            ``task.bad-loss`` and those of loading tasks and weights.
        UsageError: ``usage.checkpoint-exists``, ``usage.nothing-to-resume``,
            ``usage.resume-mismatch``, ``usage.bad-checkpoint``, ``usage.same-network``,
            ``usage.unknown-layer`` and the others of :mod:`converters.distill.settings` and
            ``features``.
    """
    run = _Run(task, teacher_ref, settings.checked(), checkpoint, weights, storage)
    for doubt in run.doubts:
        warn(doubt)
    if resume:
        run.load()
    elif checkpoint.exists():
        raise UsageError(
            "checkpoint-exists",
            f"{checkpoint} holds an unfinished distillation.",
            "Add --resume to go on with it, or delete it to start over.",
        )
    for progress in run.epochs():
        report(progress)
    return run.result()


class _Run:
    """Both stages of one distillation."""

    def __init__(
        self,
        task: LoadedTask,
        teacher_ref: str,
        settings: Settings,
        checkpoint: Path,
        weights: Path | None,
        storage: Storage | None,
    ) -> None:
        calm_threads()
        self._task, self._settings, self._path = task, settings, checkpoint
        self._storage = storage
        torch.manual_seed(settings.seed)
        self._initial = build_module(task, weights, seed=settings.seed)
        self._teacher = load_teacher(teacher_ref, task)
        self._asked = settings.as_dict() | {
            "student": named_network(task.ref, weights),
            "teacher": named_network(*split_reference(teacher_ref)),
        }
        self._examples = [_one_input(task, self._initial, h, w) for h, w in task.resolutions]
        for example in self._examples:
            answer = check_answers(self._teacher, self._initial, task, example)
        _check_losses(settings, answer)
        self._pairs: tuple[Pair, ...] = ()
        if "feature" in settings.losses:
            self._pairs = choose_pairs(
                self._initial, self._teacher.module, self._examples[0], settings.features
            )
        self._count = settings.epochs or int(getattr(task.task, "epochs", DEFAULT_EPOCHS))
        self._evaluation = {f"{h}x{w}": evaluation_set(task, h, w) for h, w in task.resolutions}
        held_out = self._evaluation[self._full]
        refuse_same_network(self._initial, self._teacher, held_out)
        self._teacher_score = self._score(self._teacher, self._full)
        self.doubts = doubts_about(task, self._teacher_score, held_out)
        stages = (ALONE, DISTILLED) if settings.alone and is_labelled(task) else (DISTILLED,)
        self._stages = stages
        self._done: dict[str, float] = {}
        self._history: list[Progress] = []
        self._saved: dict[str, Any] | None = None
        self._generators: dict[str, Any] = {}
        self._student: nn.Module = self._initial

    def load(self) -> None:
        """Go on from the checkpoint."""
        self._saved, self._generators = load_state(FORM, self._path, self._asked)
        try:
            restore_random(self._generators)
        except Exception as error:
            raise bad_checkpoint(
                self._path, f"is no checkpoint of {FORM.command}", error
            ) from error
        self._done = dict(self._saved["done"])
        self._history = [Progress(**item) for item in self._saved["history"]]
        if DISTILLED in self._done:  # the power went between the last epoch and the result
            self._restore({"student": self._student})

    def epochs(self) -> Iterator[Progress]:
        """Train what is left, yielding after each epoch."""
        for stage in self._stages:
            if stage not in self._done:
                yield from self._stage(stage)

    def result(self) -> Distilled:
        """The outcome once all epochs have run."""
        scores = {size: self._score(self._student, size) for size in self._evaluation}
        return Distilled(
            student=self._student,
            measure="accuracy" if self._task.kind == "classification" else "agreement",
            teacher=self._teacher_score,
            alone=self._done.get(ALONE),
            distilled=self._done[DISTILLED],
            accuracy=scores,
            pairs=self._pairs,
            history=tuple(self._history),
        )

    @property
    def _full(self) -> str:
        return next(iter(self._evaluation))

    def _stage(self, stage: str) -> Iterator[Progress]:
        lesson, optimizer, first = self._lesson(stage)
        own = float(getattr(self._task.task, "learning_rate", DEFAULT_LEARNING_RATE))
        rate = self._settings.learning_rate or own
        for number in range(first, self._count + 1):
            started = time.monotonic()
            set_rate(optimizer, rate * cosine(number - 1, self._count))
            steps = distillation_steps(self._task, self._settings.seed * MAX_EPOCHS + number)
            loss = epoch(lesson, optimizer, steps)
            accuracy = self._score(lesson.student, self._full)
            seconds = time.monotonic() - started
            self._history.append(Progress(stage, number, self._count, loss, accuracy, seconds))
            if number == self._count:
                self._done[stage] = accuracy
            self._save(stage, number, lesson, optimizer)
            yield self._history[-1]
        self._student = lesson.student
        self._saved = None

    def _lesson(self, stage: str) -> tuple[Lesson, torch.optim.Optimizer, int]:
        """A stage at its beginning, or where the checkpoint left it; and its next epoch."""
        student = copy.deepcopy(self._initial).requires_grad_(True)
        taught = stage == DISTILLED
        seed_all(self._settings.seed)  # both stages meet the same batches
        layers = adapters(
            self._pairs if taught else (), student, self._teacher.module, self._examples[0]
        )
        lesson = Lesson(
            self._task,
            student,
            self._teacher if taught else None,
            self._pairs if taught else (),
            layers,
            self._settings,
        )
        optimizer = torch.optim.AdamW(lesson.parameters(), lr=1e-3, weight_decay=1e-2)
        saved = self._saved
        if saved is None or saved["stage"] != stage:
            return lesson, optimizer, 1
        self._restore({"student": student, "adapters": layers, "optimizer": optimizer})
        restore_random(self._generators)  # after all that drew from them
        return lesson, optimizer, int(saved["epoch"]) + 1

    def _restore(self, parts: dict[str, Any]) -> None:
        """Load the saved states of what trains.

        Raises:
            UsageError: ``usage.bad-checkpoint`` when the code has changed since.
        """
        saved = self._saved or {}
        for name, part in parts.items():
            try:
                part.load_state_dict(saved[name])
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                why = f"does not fit the {name}, which has changed since"
                raise bad_checkpoint(self._path, why, error) from error

    def _save(
        self, stage: str, number: int, lesson: Lesson, optimizer: torch.optim.Optimizer
    ) -> None:
        state = {
            "stage": stage,
            "epoch": number,
            "student": lesson.student.state_dict(),
            "adapters": lesson.adapters.state_dict(),
            "optimizer": optimizer.state_dict(),
            "done": dict(self._done),
            "history": [
                {name: getattr(item, name) for name in Progress.__slots__} for item in self._history
            ],
        }
        save_state(FORM, self._path, self._asked, state, self._storage)

    def _score(self, module: nn.Module, size: str) -> float:
        module.eval()
        samples = self._evaluation[size]
        if self._task.kind == "classification":
            return accuracy_on(self._task, module, samples)
        return _agreement(module, self._teacher, samples.inputs, self._settings)


def _one_input(task: LoadedTask, module: nn.Module, height: int, width: int) -> torch.Tensor:
    examples = check_examples(task, module, height, width)
    if len(examples) != 1:
        raise TaskError(
            "teacher-mismatch",
            f"{task.name} takes {len(examples)} inputs; distillation needs exactly one.",
            "Wrap the module so that it takes one tensor.",
        )
    return examples[0]


def _check_losses(settings: Settings, answer: torch.Tensor) -> None:
    if "logit" in settings.losses and answer.shape[1] < 2:
        raise UsageError(
            "bad-distillation",
            f"--loss logit compares classes; this student answers {tuple(answer.shape)}.",
            "Use --loss mask or --loss feature.",
        )
    if "mask" in settings.losses and answer.dim() != 4:
        raise UsageError(
            "bad-distillation",
            f"--loss mask needs outputs (N, masks, H, W); this student answers "
            f"{tuple(answer.shape)}.",
            "Use --loss logit for a classification.",
        )


@torch.inference_mode()
def _agreement(student: nn.Module, teacher: Teacher, inputs: Floats, settings: Settings) -> float:
    """How like the teacher a student answers, 0..1: overlap of masks, or 1 - relative error."""
    scores = []
    for start in range(0, len(inputs), _SCORED):
        batch = torch.from_numpy(inputs[start : start + _SCORED])
        one, other = student(batch), teacher(batch)
        if "mask" in settings.losses:
            score = mask_overlap(one, other)
        else:
            error = (one - other).square().mean() / other.square().mean().clamp_min(1e-12)
            score = max(0.0, 1.0 - float(error) ** 0.5)
        scores.append(score * len(batch))
    return sum(scores) / len(inputs)
