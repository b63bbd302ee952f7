"""The teacher: loaded, made to see what the student sees, and held to the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from converters.data import Samples
from converters.keys import file_digest
from converters.loading import LoadedTask, load_task
from converters.module import build_module
from converters.usercode import user_code
from edge_sdk.errors import TaskError, UsageError

_COMPARED = 8
"""Samples that tell two networks apart."""


class Teacher(nn.Module):
    """A frozen module behind the change from the student's normalisation to its own."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, module: nn.Module, student: LoadedTask, teacher: LoadedTask) -> None:
        super().__init__()
        self.module = module
        mine, theirs = student.preprocess, teacher.preprocess
        std, mean = (torch.tensor(v, dtype=torch.float32) for v in (mine.std, mine.mean))
        own_std, own_mean = (
            torch.tensor(v, dtype=torch.float32) for v in (theirs.std, theirs.mean)
        )
        self.same = mine == theirs
        self.register_buffer("scale", (std / own_std).reshape(1, -1, 1, 1))
        self.register_buffer("shift", ((mean - own_mean) / own_std).reshape(1, -1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The teacher's answer to inputs normalised for the student."""
        seen = inputs if self.same else inputs * self.scale + self.shift
        answer: torch.Tensor = self.module(seen)
        return answer


def split_reference(reference: str) -> tuple[str, Path | None]:
    """``path.py:Class[:weights]`` apart."""
    head, _, tail = reference.rpartition(":")
    if ".py:" in head:
        return head, Path(tail).expanduser()
    return reference, None


def load_teacher(reference: str, student: LoadedTask) -> Teacher:
    """The teacher of a student.

    Args:
        reference: ``path.py:Class`` or ``path.py:Class:weights.pt``.
        student: decides what inputs look like.

    Raises:
        TaskError: ``task.teacher-mismatch`` when both do not tell the same classes apart or look
            at differently coloured images; those of loading a task and its weights.
    """
    ref, weights = split_reference(reference)
    task = load_task(ref)
    if task.kind != student.kind or task.labels != student.labels:
        raise _mismatch(
            f"{task.name} and {student.name} do not have the same labels in the same order"
        )
    if task.preprocess.color != student.preprocess.color:
        raise _mismatch(
            f"{task.name} takes {task.preprocess.color} images, {student.name} takes "
            f"{student.preprocess.color}"
        )
    return Teacher(build_module(task, weights), student, task)


def check_answers(
    teacher: Teacher, student: nn.Module, task: LoadedTask, example: torch.Tensor
) -> torch.Tensor:
    """Refuse a teacher whose answer has another shape; returns the answer's example.

    Raises:
        TaskError: ``task.teacher-mismatch``, ``task.user-code-failed``.
    """
    size = "x".join(str(side) for side in example.shape[2:])
    what = f"The teacher's or student's forward at {size}"
    with user_code(task.path, what), torch.inference_mode():
        one, other = student(example), teacher(example)
    shapes = [
        tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        for answer in (one, other)
    ]
    if shapes[0] != shapes[1] or isinstance(shapes[0], str):
        raise _mismatch(
            f"at {size} the student answers {shapes[0]}, the teacher {shapes[1]}; both must be "
            "one tensor of the same shape"
        )
    if not torch.isfinite(other).all():
        raise _mismatch(f"the teacher answers NaN or infinity at {size}")
    answer: torch.Tensor = one
    return answer


@torch.inference_mode()
def refuse_same_network(student: nn.Module, teacher: Teacher, held_out: Samples) -> None:
    """Refuse a teacher that answers exactly what the student answers already.

    Raises:
        UsageError: ``usage.same-network``.
    """
    inputs = torch.from_numpy(held_out.inputs[:_COMPARED])
    if torch.equal(student.eval()(inputs), teacher(inputs)):
        raise UsageError(
            "same-network",
            "The teacher gives the very answers that the student gives before any training.",
            "Give the teacher its trained weights (path.py:Class:weights.pt), or another network.",
        )


def doubts_about(task: LoadedTask, score: float, held_out: Samples) -> tuple[str, ...]:
    """Why a distillation may not be worth its time.

    Args:
        task: of the student.
        score: of the teacher on the held-out samples, 0..1.
        held_out: those samples.
    """
    if task.kind != "classification" or hasattr(task.task, "score"):
        return ()
    count = len(held_out.labels)
    guess = float(np.bincount(held_out.labels).max()) / count
    if score > guess + 3 * (guess * (1 - guess) / count) ** 0.5:
        return ()
    doubt = (
        f"The teacher scores {score * 100:.1f} % on {count} held-out samples, not clearly more "
        f"than the {guess * 100:.1f} % of always giving the most frequent answer. Is it trained? "
        "Weights are given as path.py:Class:weights.pt."
    )
    return (doubt,)


def named_network(reference: str, weights: Path | None) -> str:
    """A network as a checkpoint remembers it: its class, and its weights by their content."""
    name = reference.rpartition(":")[2]
    if weights is None:
        return f"{name} as built"
    return f"{name} with weights {file_digest(weights)[:16]}"


def _mismatch(what: str) -> TaskError:
    return TaskError(
        "teacher-mismatch",
        f"Teacher and student do not fit: {what}.",
        "Give a teacher for the same task.",
    )
