"""What a search may vary, as a list of axes. Pure data and pure functions.

A sub-network is a tuple with one option per axis, 0 being the full network's; so sampling,
mutation and enumeration need to know nothing of networks.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["resolution", "kernel", "depth", "width"]
KINDS: tuple[Kind, ...] = ("resolution", "kernel", "depth", "width")
Genes = tuple[int, ...]
"""Option by axis."""


@dataclass(frozen=True, slots=True)
class Elastic:
    """What a task declares as its ``elastic``; without it, widths and resolutions are searched.

    ``Elastic(depth={"stages.0": 1}, kernel={"stages.*.depthwise": (3,)})``
    """

    depth: Mapping[str, int] = field(default_factory=dict)
    """By name of an ``nn.Sequential``: the fewest blocks it may keep, the first ones. The blocks
    that can go return what they are given the shape of, and add to it (residual blocks)."""
    kernel: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By pattern of convolutions' names: smaller odd sides, cut out of the kernel's centre."""
    widths: tuple[float, ...] = (1.0, 0.75, 0.5, 0.35)
    """Shares of the channels that every group may keep, each on its own."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that varies."""

    kind: Kind
    name: str
    """Of the stage, the convolution or the group of channels; empty for the resolution."""
    options: tuple[float, ...]
    """The full network's first, descending: blocks, side of the kernel, share of the channels; for
    the resolution its index in the task's list, ascending."""
    block: tuple[str, int] | None = None
    """Stage and index of the block that all of it lies in, if that can be dropped."""


class Space:
    """Sub-networks as points.

    Args:
        axes: in any order.
    """

    def __init__(self, axes: Collection[Axis]) -> None:
        self.axes = tuple(axes)
        self._stages = {axis.name: i for i, axis in enumerate(self.axes) if axis.kind == "depth"}

    @property
    def full(self) -> Genes:
        """The network itself."""
        return (0,) * len(self.axes)

    @property
    def size(self) -> int:
        """Points, counting those apart that differ only in dropped blocks."""
        return math.prod(len(axis.options) for axis in self.axes)

    def value(self, genes: Genes, index: int) -> float:
        """The chosen option of an axis."""
        return self.axes[index].options[genes[index]]

    def chosen(self, genes: Genes, kind: Kind) -> dict[str, float]:
        """Options of one kind by name."""
        return {
            axis.name: axis.options[gene]
            for axis, gene in zip(self.axes, genes, strict=True)
            if axis.kind == kind
        }

    def canonical(self, genes: Genes) -> Genes:
        """The same sub-network with whatever lies in dropped blocks left full."""
        return tuple(
            0 if self._dropped(genes, axis) else gene
            for axis, gene in zip(self.axes, genes, strict=True)
        )

    def smallest(self, kinds: Collection[Kind]) -> Genes:
        """The last option of every axis of some kinds."""
        picked = (len(a.options) - 1 if a.kind in kinds else 0 for a in self.axes)
        return self.canonical(tuple(picked))

    def drawn(self, draw: random.Random, kinds: Collection[Kind]) -> Genes:
        """Any option of every axis of some kinds."""
        picked = (draw.randrange(len(a.options)) if a.kind in kinds else 0 for a in self.axes)
        return self.canonical(tuple(picked))

    def mutated(self, genes: Genes, draw: random.Random, rate: float) -> Genes:
        """Each axis redrawn with a probability."""
        picked = (
            draw.randrange(len(axis.options)) if draw.random() < rate else gene
            for axis, gene in zip(self.axes, genes, strict=True)
        )
        return self.canonical(tuple(picked))

    def crossed(self, one: Genes, other: Genes, draw: random.Random) -> Genes:
        """Each axis from one parent or the other."""
        return self.canonical(tuple(draw.choice(pair) for pair in zip(one, other, strict=True)))

    def uniform(self, share: float) -> Genes:
        """Every width at the option nearest to a share; all else full."""
        return tuple(
            min(range(len(axis.options)), key=lambda i: abs(axis.options[i] - share))
            if axis.kind == "width"
            else 0
            for axis in self.axes
        )

    def smaller(self, genes: Genes) -> list[Genes]:
        """One step down on each axis that has one and is not in a dropped block."""
        return self._stepped(genes, 1)

    def larger(self, genes: Genes) -> list[Genes]:
        """One step up on each axis."""
        return self._stepped(genes, -1)

    def everything(self) -> Iterator[Genes]:
        """All points, each once; ask :attr:`size` first."""
        for genes in itertools.product(*(range(len(axis.options)) for axis in self.axes)):
            if self.canonical(genes) == genes:
                yield genes

    def _stepped(self, genes: Genes, by: int) -> list[Genes]:
        found = []
        for index, axis in enumerate(self.axes):
            option = genes[index] + by
            if 0 <= option < len(axis.options) and not self._dropped(genes, axis):
                found.append(self.canonical((*genes[:index], option, *genes[index + 1 :])))
        return found

    def _dropped(self, genes: Genes, axis: Axis) -> bool:
        if axis.block is None or axis.block[0] not in self._stages:
            return False
        stage, number = axis.block
        return number >= self.value(genes, self._stages[stage])
