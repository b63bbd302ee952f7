"""The teacher: loaded, made to see what the student sees, and held to the same answers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from converters.loading import LoadedTask, load_task
from converters.module import build_module
from converters.usercode import user_code
from edge_sdk.errors import TaskError


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
    answer: torch.Tensor = one
    return answer


def _mismatch(what: str) -> TaskError:
    return TaskError(
        "teacher-mismatch",
        f"Teacher and student do not fit: {what}.",
        "Give a teacher for the same task, or distil by --loss feature with --features alone.",
    )
