"""A module and all of its sub-networks, over one set of weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from converters.loading import LoadedTask
from converters.slim.groups import kept_positions, shapes_of
from converters.slim.narrow import narrow, tensors_of
from converters.slim.search import Unit
from converters.supernet.reshape import centre, crop, shorten
from converters.supernet.space import Axis, Elastic, Genes, Space
from edge_sdk.errors import TaskError

_SHAPE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class Supernet:
    """Sub-networks of a module.

    Args:
        module: at full size; its weights are what is shared.
        units: channels that may be narrowed.
        space: of the sub-networks.
    """

    def __init__(self, module: nn.Module, units: Sequence[Unit], space: Space) -> None:
        self.module, self.space = module, space
        self.groups = tuple(group for unit in units for group in unit.groups)
        self._units = {unit.name: unit for unit in units}

    def kept(self, genes: Genes) -> dict[str, int]:
        """Channels by group; whole groups are left out."""
        found = {}
        for name, share in self.space.chosen(genes, "width").items():
            for group in self._units[name].groups:
                count = max(1, round(group.size * share))
                if count < group.size:
                    found[group.name] = count
        return found

    def depths(self, genes: Genes) -> dict[str, int]:
        """Blocks by stage."""
        return {name: int(n) for name, n in self.space.chosen(genes, "depth").items()}

    def kernels(self, genes: Genes) -> dict[str, int]:
        """Sides by convolution."""
        return {name: int(n) for name, n in self.space.chosen(genes, "kernel").items()}

    def resolution(self, genes: Genes) -> int:
        """Index in the task's resolutions."""
        return int(self.space.chosen(genes, "resolution").get("", 0))

    def build(self, genes: Genes) -> nn.Module:
        """A module of its own; its BatchNorm statistics are still the full network's."""
        small = narrow(self.module, self.groups, self.kept(genes))
        crop(small, self.kernels(genes))
        shorten(small, self.depths(genes))
        return small

    def forward(self, genes: Genes, inputs: Sequence[torch.Tensor]) -> Any:
        """The answer of a sub-network in training mode; gradients reach the shared weights."""
        small = self.build(genes).train()
        return torch.func.functional_call(small, self._cut(genes, small), tuple(inputs))

    def _cut(self, genes: Genes, small: nn.Module) -> dict[str, torch.Tensor]:
        full = dict(self.module.named_parameters(remove_duplicate=False))
        cuts: dict[str, list[tuple[int, list[int]]]] = {}
        shapes = shapes_of(tensors_of(self.module))
        for (name, axis), indexes in kept_positions(self.groups, self.kept(genes), shapes).items():
            cuts.setdefault(name, []).append((axis, indexes))
        sides = {f"{name}.weight": side for name, side in self.kernels(genes).items()}
        found = {}
        for name, _ in small.named_parameters(remove_duplicate=False):
            value: torch.Tensor = full[name]
            for axis, indexes in cuts.get(name, ()):
                if indexes[-1] == len(indexes) - 1:
                    value = value.narrow(axis, 0, len(indexes))
                else:
                    value = value.index_select(axis, torch.tensor(indexes, device=value.device))
            side = sides.get(name)
            found[name] = centre(value, side) if side is not None else value
        return found


def space_of(task: LoadedTask, module: nn.Module, units: Sequence[Unit]) -> Space:
    """What the task's ``elastic`` and its resolutions allow.

    Raises:
        TaskError: ``task.bad-elastic``.
    """
    elastic = getattr(task.task, "elastic", Elastic())
    if not isinstance(elastic, Elastic):
        raise bad_elastic(task, f"elastic is {type(elastic).__name__}, not Elastic")
    if len(task.resolutions) > 1:
        sizes = [Axis("resolution", "", tuple(range(len(task.resolutions))))]
    else:
        sizes = []
    stages = [_stage(task, module, name, least) for name, least in elastic.depth.items()]
    blocks = {
        f"{name}.{child}.": (name, number)
        for name in elastic.depth
        for number, (child, _) in enumerate(module.get_submodule(name).named_children())
    }
    sides = [
        axis
        for pattern, smaller in elastic.kernel.items()
        for axis in _kernels(task, module, pattern, smaller, blocks)
    ]
    widths = [axis for unit in units if (axis := _width(task, unit, elastic, blocks)) is not None]
    return Space((*sizes, *sides, *stages, *widths))


def tried(task: LoadedTask, network: Supernet, example: Sequence[torch.Tensor]) -> None:
    """Run every axis at its smallest, alone and with the shortest stages.

    Raises:
        TaskError: ``task.bad-elastic`` names the axis at which the module breaks.
    """
    space = network.space
    short = space.smallest({"depth"})
    for index, axis in enumerate(space.axes):
        if axis.kind == "resolution":
            continue
        alone = list(space.full)
        alone[index] = len(axis.options) - 1
        both = [a if i == index else b for i, (a, b) in enumerate(zip(alone, short, strict=True))]
        for genes in (tuple(alone), space.canonical(tuple(both))):
            try:
                with torch.no_grad():
                    network.build(genes).eval()(*example)
            except _SHAPE_ERRORS as error:
                what = f"the module does not run with {axis.kind} of {axis.name} at its smallest"
                raise bad_elastic(task, f"{what} ({str(error)[:160]})") from error


def bad_elastic(task: LoadedTask, what: str) -> TaskError:
    """The error for a declaration that the module does not keep."""
    return TaskError(
        "bad-elastic",
        f"{task.path.name}: {what}.",
        "Declare residual blocks of an nn.Sequential, and convolutions with square, odd kernels "
        "and a padding of half their side; docs/supernet.md shows a network.",
    )


def _stage(task: LoadedTask, module: nn.Module, name: str, least: int) -> Axis:
    try:
        stage = module.get_submodule(name)
    except AttributeError as error:
        raise bad_elastic(task, f"there is no stage {name}") from error
    if not isinstance(stage, nn.Sequential) or not 1 <= least <= len(stage):
        raise bad_elastic(task, f"{name} is no nn.Sequential of at least {max(least, 1)} blocks")
    return Axis("depth", name, tuple(range(len(stage), least - 1, -1)))


def _kernels(
    task: LoadedTask,
    module: nn.Module,
    pattern: str,
    smaller: tuple[int, ...],
    blocks: dict[str, tuple[str, int]],
) -> list[Axis]:
    found = []
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d) or not fnmatch.fnmatchcase(name, pattern):
            continue
        own = layer.kernel_size[0]
        same = tuple((own - 1) // 2 * dilation for dilation in layer.dilation)
        square = layer.kernel_size[0] == layer.kernel_size[1] and own % 2 == 1
        if not square or layer.padding != same:
            raise bad_elastic(task, f"the kernel of {name} has no centre that keeps its size")
        if any(side % 2 == 0 or not 1 <= side < own for side in smaller):
            raise bad_elastic(task, f"{name} has side {own}, which cannot become {smaller}")
        options = (own, *sorted(set(smaller), reverse=True))
        found.append(Axis("kernel", name, options, _block_of([name], blocks)))
    if not found:
        raise bad_elastic(task, f"no nn.Conv2d is called {pattern}")
    return found


def _width(
    task: LoadedTask, unit: Unit, elastic: Elastic, blocks: dict[str, tuple[str, int]]
) -> Axis | None:
    if not elastic.widths or not all(0 < share <= 1 for share in elastic.widths):
        raise bad_elastic(task, f"widths {elastic.widths} are no shares")
    near = {min(unit.levels, key=lambda level: abs(level - share)) for share in elastic.widths}
    options = tuple(sorted({1.0, *near}, reverse=True))
    if len(options) < 2:
        return None
    tensors = [entry.tensor for group in unit.groups for entry in group.entries]
    return Axis("width", unit.name, options, _block_of(tensors, blocks))


def _block_of(names: Sequence[str], blocks: dict[str, tuple[str, int]]) -> tuple[str, int] | None:
    for prefix, block in blocks.items():
        if all(name.startswith(prefix) for name in names):
            return block
    return None
