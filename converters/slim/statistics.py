"""What the layers of a module receive: second moments of their inputs, by channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from converters.norm_statistics import Batch
from converters.slim.groups import Group, owner

MAX_FEATURES = 2048
"""Inputs of a layer whose second moments are worth a square matrix."""
_ROWS = 4096
"""Positions per batch that enter a matrix."""

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


def readers_of(module: nn.Module, groups: Sequence[Group]) -> dict[str, nn.Module]:
    """Layers that sum over narrowed channels, by the name of their weight."""
    found: dict[str, nn.Module] = {}
    for group in groups:
        for entry in group.entries:
            layer = module.get_submodule(owner(entry.tensor))
            plain = isinstance(layer, _LAYERS) and getattr(layer, "groups", 1) == 1
            if entry.reads and plain and entry.tensor.endswith("weight"):
                found[entry.tensor] = layer
    return found


def input_energy(
    module: nn.Module, groups: Sequence[Group], batches: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Mean square of each input of each reader, (inputs,) by weight name."""
    sums: dict[str, torch.Tensor] = {}

    def note(name: str, rows: torch.Tensor) -> None:
        sums[name] = sums.get(name, torch.zeros(())) + rows.square().mean(0)

    with watched(module, groups, note), torch.no_grad():
        for batch in batches:
            module(*batch)
    return {name: total / len(batches) for name, total in sums.items()}


def second_moments(
    module: nn.Module, groups: Sequence[Group], batches: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Mean of x x^T over positions, (inputs, inputs) by weight name, for readers not too wide."""
    sums: dict[str, torch.Tensor] = {}

    def note(name: str, rows: torch.Tensor) -> None:
        if rows.shape[1] <= MAX_FEATURES:
            some = rows[:: max(1, len(rows) // _ROWS)].double()
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + (
                some.T @ some
            ) / len(some)

    with watched(module, groups, note), torch.no_grad():
        for batch in batches:
            module(*batch)
    return {name: total / len(batches) for name, total in sums.items()}


@contextmanager
def watched(
    module: nn.Module, groups: Sequence[Group], note: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Call ``note(weight, rows)`` with what each reader receives, (positions, inputs)."""
    hooks = []
    for name, layer in readers_of(module, groups).items():

        def hook(layer: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
            value = inputs[0].detach()
            rows = value if isinstance(layer, nn.Linear) else value.movedim(1, -1)
            note(name, rows.reshape(-1, rows.shape[-1]))

        hooks.append(layer.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
