"""What is known of each value of a program while its channels are followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from converters.slim.atoms import Atoms, Labels


@dataclass(frozen=True, slots=True)
class Leaf:
    """A parameter or buffer of the module."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerUse:
    """One call of a layer with weights, for costs."""

    weight: str
    positions: int
    """Times that every element of the weight is multiplied in one inference."""
    depthwise: bool
    kernel: int
    """Elements of the kernel."""
    inputs: int
    outputs: int
    """Elements read and written per inference."""


class Values:
    """Labels of every value seen so far, and what all rules need.

    Args:
        tie_parts: what cuts an axis of channels into equal parts ties the parts' channels, as
            code does that halves or shuffles them; otherwise parts (heads) can be dropped.
    """

    def __init__(self, *, tie_parts: bool) -> None:
        self.atoms = Atoms()
        self.axes: dict[tuple[str, int], Labels] = {}
        """Atoms along an axis of a parameter or buffer."""
        self.reads: set[tuple[str, int]] = set()
        """Axes over which a layer sums: its input channels."""
        self.uses: list[LayerUse] = []
        self.refused: dict[str, str] = {}
        """Modules whose operator has no rule, with the reason."""
        self._tie_parts = tie_parts
        self._values: dict[Any, Any] = {}

    def _labels(self, argument: Any) -> Labels | None:
        """Labels of an argument; a vector among the parameters gets channels of its own."""
        value = self._values.get(argument) if isinstance(argument, torch.fx.Node) else None
        if isinstance(value, torch.Tensor):
            return value
        if not isinstance(value, Leaf):
            return None
        wide = [axis for axis, size in enumerate(value.shape) if size > 1]
        if len(wide) != 1:
            return torch.zeros(value.shape, dtype=torch.int64)
        shape = [1] * len(value.shape)
        shape[wide[0]] = -1
        return self._written(value, wide[0]).reshape(shape)

    def _leaf(self, argument: Any) -> Leaf | None:
        value = self._values.get(argument) if isinstance(argument, torch.fx.Node) else None
        return value if isinstance(value, Leaf) else None

    def _written(self, leaf: Leaf, axis: int) -> Labels:
        """Atoms along an axis of a parameter, new ones at its first use."""
        key = (leaf.name, axis)
        if key not in self.axes:
            self.axes[key] = self.atoms.fresh(leaf.shape[axis])
        return self.axes[key]

    def _bind(self, leaf: Leaf | None, axis: int, labels: Labels, where: str) -> None:
        """An axis of a parameter runs along these channels."""
        if leaf is None or leaf.shape[axis] != len(labels):
            return
        self.atoms.unite(self._written(leaf, axis), labels, where)

    def _line(self, labels: Labels, axis: int, where: str) -> Labels:
        """Atoms along one axis, after making those across it one."""
        rows = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)
        first = rows[:, :1]
        if bool((rows != first).any()):
            self.atoms.unite(rows, first.expand_as(rows), where)
        return first[:, 0]

    def _hold_all(self, node: Any, reason: str) -> None:
        for argument in node.all_input_nodes:
            labels = self._labels(argument) if not self._leaf(argument) else None
            if labels is not None:
                self.atoms.hold(labels, reason)


def op_name(node: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default`` and of its in-place form."""
    packet = getattr(node.target, "overloadpacket", None)
    name = str(packet).rpartition(".")[2] if packet else ""
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


def arguments(node: Any) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, defaults included."""
    found: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        if index < len(node.args):
            found[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def shape_of(node: Any) -> tuple[int, ...]:
    """Of the node's one tensor."""
    return tuple(int(size) for size in node.meta["val"].shape)


def varies(labels: Labels) -> set[int]:
    """Axes along which labels differ."""
    return {
        axis
        for axis in range(labels.ndim)
        if labels.shape[axis] > 1 and bool((labels != labels.narrow(axis, 0, 1)).any())
    }


def distinct(labels: Labels, axis: int) -> int:
    """How many different labels a line along an axis has."""
    return len(torch.unique(labels.movedim(axis, 0).reshape(labels.shape[axis], -1)[:, 0]))


def spread(line: Labels, shape: tuple[int, ...], axis: int) -> Labels:
    """Labels along one axis of a shape."""
    sizes = [1] * len(shape)
    sizes[axis] = -1
    return line.reshape(sizes).expand(shape)


def area(shape: Sequence[int]) -> int:
    """Positions of (N, C, ...)."""
    return torch.Size(shape[2:]).numel()
