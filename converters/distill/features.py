"""Which layers of student and teacher are compared, and the adapters between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class Pair:
    """Layers whose outputs should agree, by their names in their modules."""

    student: str
    teacher: str


class Watch:
    """Keeps the latest outputs of named layers while it is open (a context manager)."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.outputs: dict[str, torch.Tensor] = {}
        self._module = module
        self._names = dict.fromkeys(names)
        self._hooks: list[Any] = []

    def __enter__(self) -> Watch:
        for name in self._names:
            layer = self._module.get_submodule(name)
            self._hooks.append(layer.register_forward_hook(self._keep(name)))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                self.outputs[name] = output

        return hook


def choose_pairs(
    student: nn.Module, teacher: nn.Module, example: torch.Tensor, wanted: Sequence[str]
) -> tuple[Pair, ...]:
    """The layers to compare.

    Args:
        student, teacher: in evaluation mode.
        example: (1, C, H, W), an input of both.
        wanted: ``STUDENT_LAYER=TEACHER_LAYER``; empty: for every height and width that both
            networks produce, the last layer of each that does.

    Raises:
        UsageError: ``usage.unknown-layer``, ``usage.bad-layer-pair``, ``usage.no-layer-pair``.
    """
    shapes = [layer_shapes(module, example) for module in (student, teacher)]
    if wanted:
        return tuple(_named(text, *shapes) for text in wanted)
    last = [{shape[2:]: name for name, shape in s.items() if len(shape) == 4} for s in shapes]
    common = [size for size in last[0] if size in last[1] and min(size) > 1]
    if not common:
        raise UsageError(
            "no-layer-pair",
            "Student and teacher have no layers of the same height and width.",
            "Name them: --features STUDENT_LAYER=TEACHER_LAYER; sizes may then differ.",
        )
    return tuple(Pair(last[0][size], last[1][size]) for size in common)


def layer_shapes(module: nn.Module, example: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Output shapes of all layers that give one tensor, in the order they run."""
    names = [name for name, _ in module.named_modules() if name]
    with Watch(module, names) as watch, torch.inference_mode():
        module(example)
    return {name: tuple(output.shape) for name, output in watch.outputs.items()}


def adapters(
    pairs: Sequence[Pair], student: nn.Module, teacher: nn.Module, example: torch.Tensor
) -> nn.ModuleList:
    """For each pair a 1x1 convolution (a linear layer for vectors) to the teacher's channels.

    They are trained with the student and thrown away afterwards.
    """
    shapes = [layer_shapes(module, example) for module in (student, teacher)]
    layers: list[nn.Module] = []
    for pair in pairs:
        mine, theirs = shapes[0][pair.student], shapes[1][pair.teacher]
        if len(mine) == 4:
            layers.append(nn.Conv2d(mine[1], theirs[1], 1))
        else:
            layers.append(nn.Linear(mine[-1], theirs[-1]))
    return nn.ModuleList(layers)


def _named(text: str, mine: dict[str, tuple[int, ...]], theirs: dict[str, tuple[int, ...]]) -> Pair:
    one, equals, other = text.partition("=")
    if not equals:
        other = one
    for name, known, whose in ((one, mine, "student"), (other, theirs, "teacher")):
        if name not in known:
            raise UsageError(
                "unknown-layer",
                f"The {whose} has no layer {name!r} that gives one tensor.",
                did_you_mean(name, known),
            )
    if len(mine[one]) != len(theirs[other]) or len(mine[one]) not in (2, 4):
        raise UsageError(
            "bad-layer-pair",
            f"{one!r} gives {mine[one]} in the student, {other!r} gives {theirs[other]} in the "
            "teacher.",
            "Pair images (N, C, H, W) with images and vectors (N, C) with vectors.",
        )
    return Pair(one, other)
