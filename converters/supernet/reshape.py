"""Shallower stages and smaller kernels of a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def shorten(module: nn.Module, depths: Mapping[str, int]) -> None:
    """Drop the last blocks of stages, in place; the others keep their names."""
    for stage, blocks in depths.items():
        sequence = module.get_submodule(stage)
        for name in [name for name, _ in sequence.named_children()][blocks:]:
            delattr(sequence, name)


def crop(module: nn.Module, kernels: Mapping[str, int]) -> None:
    """Give convolutions the centre of their kernels, in place; their outputs keep their size.

    Elastic kernels of Cai et al., "Once-for-All" (ICLR 2020), without the learned transform.
    """
    for name, side in kernels.items():
        layer: Any = module.get_submodule(name)
        cut = layer.kernel_size[0] - side
        if cut <= 0:
            continue
        with torch.no_grad():
            weight = centre(layer.weight.detach(), side).clone()
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
        layer.kernel_size = (side,) * len(layer.kernel_size)
        layer.padding = tuple(
            padding - cut // 2 * dilation
            for padding, dilation in zip(layer.padding, layer.dilation, strict=True)
        )
        layer._reversed_padding_repeated_twice = [p for p in layer.padding[::-1] for _ in range(2)]


def centre(weight: torch.Tensor, side: int) -> torch.Tensor:
    """(out, in, K, K) to (out, in, side, side): a view of the middle."""
    for axis in range(2, weight.ndim):
        weight = weight.narrow(axis, (weight.shape[axis] - side) // 2, side)
    return weight
