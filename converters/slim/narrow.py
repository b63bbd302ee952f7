"""Reordering and dropping channels of a module: what comes out is a smaller module."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from converters.slim.groups import Group, kept_positions, owner, shapes_of

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by every name they have, shared ones included."""
    named = (*module.named_parameters(remove_duplicate=False),)
    return {**dict(named), **dict(module.named_buffers(remove_duplicate=False))}


def permute(
    module: nn.Module, orders: Mapping[str, Sequence[int]], groups: Iterable[Group]
) -> None:
    """Reorder channels in place; the module computes the same function.

    Args:
        module: changed.
        orders: by group name, for each new place the channel that comes there.
        groups: all groups.
    """
    tensors = tensors_of(module)
    with torch.no_grad():
        for group in groups:
            order = orders.get(group.name)
            if order is None:
                continue
            for entry in group.entries:
                index = list(range(tensors[entry.tensor].shape[entry.axis]))
                for place, channel in enumerate(order):
                    pairs = zip(entry.positions[place], entry.positions[channel], strict=True)
                    for target, source in pairs:
                        index[target] = source
                tensor = tensors[entry.tensor]
                tensor.copy_(tensor.index_select(entry.axis, torch.tensor(index)))


def narrow(module: nn.Module, groups: Sequence[Group], kept: Mapping[str, int]) -> nn.Module:
    """A copy with the first ``kept`` channels of each group.

    Args:
        module: at full width; not changed.
        groups: all groups.
        kept: by group name; groups not named stay whole.

    Returns:
        A module of the same classes with smaller tensors.
    """
    small = copy.deepcopy(module)
    shapes = shapes_of(tensors_of(module))
    shorter: dict[str, list[tuple[int, list[int]]]] = {}
    for (name, axis), indexes in kept_positions(groups, kept, shapes).items():
        shorter.setdefault(name, []).append((axis, indexes))
    replaced: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in tensors_of(module):
        if name in shorter:
            _shorten(small, name, shorter[name], replaced)
    _share(small, replaced)
    for name in dict.fromkeys(map(owner, shorter)):
        _resize(small.get_submodule(name), module.get_submodule(name))
    for group in groups:
        for path, attribute, each in group.attributes:
            setattr(small.get_submodule(path), attribute, each * kept.get(group.name, group.size))
    return small


def _shorten(
    module: nn.Module,
    name: str,
    axes: Iterable[tuple[int, list[int]]],
    replaced: dict[int, tuple[torch.Tensor, torch.Tensor]],
) -> None:
    layer, attribute = module.get_submodule(owner(name)), name.rpartition(".")[2]
    old: torch.Tensor = getattr(layer, attribute)
    if id(old) in replaced:
        return  # shared, and shortened under its other name
    new = old.detach()
    for axis, indexes in axes:
        new = new.index_select(axis, torch.tensor(indexes, device=new.device))
    new = new.clone(memory_format=torch.contiguous_format)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    replaced[id(old)] = old, new  # the old one stays alive: its id must not be given again
    setattr(layer, attribute, new)


def _share(module: nn.Module, replaced: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Where one tensor had several names, all of them get the new one."""
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            if id(parameter) in replaced:
                setattr(layer, name, replaced[id(parameter)][1])


def _resize(layer: nn.Module, full: nn.Module) -> None:
    """The numbers that a layer keeps about its tensors."""
    weight: Any = getattr(layer, "weight", None)
    if isinstance(layer, nn.modules.conv._ConvNd) and isinstance(full, nn.modules.conv._ConvNd):
        first, second = (1, 0) if layer.transposed else (0, 1)
        layer.out_channels = weight.shape[first]
        layer.groups = full.groups * weight.shape[first] // full.out_channels
        layer.groups = full.groups if full.groups == 1 else layer.groups
        layer.in_channels = weight.shape[second] * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = weight.shape[1]
    elif isinstance(layer, nn.LayerNorm) and weight is not None:
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, _NORMS):
        held = weight if weight is not None else getattr(layer, "running_mean", None)
        if held is not None and isinstance(layer, nn.modules.batchnorm._NormBase):
            layer.num_features = held.shape[0]
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = weight.shape[0]


def silence(module: nn.Module, groups: Iterable[Group], kept: Mapping[str, int]) -> nn.Module:
    """A full-size copy in which nobody reads the channels that ``kept`` drops: masked weights.

    It answers what :func:`narrow` answers, at the full network's cost.
    """
    masked = copy.deepcopy(module)
    tensors = tensors_of(masked)
    with torch.no_grad():
        for group in groups:
            for entry in group.entries:
                gone = [p for c in entry.positions[kept.get(group.name, group.size) :] for p in c]
                if not gone:
                    continue
                if entry.reads:
                    tensors[entry.tensor].index_fill_(entry.axis, torch.tensor(gone), 0.0)
                elif isinstance(masked.get_submodule(owner(entry.tensor)), nn.LayerNorm):
                    _blind(masked, owner(entry.tensor), gone)
    return masked


def _blind(module: nn.Module, path: str, gone: Sequence[int]) -> None:
    layer = module.get_submodule(path)
    if isinstance(layer, nn.LayerNorm):
        above, _, name = path.rpartition(".")
        setattr(module.get_submodule(above), name, PartialNorm(layer, gone))


class PartialNorm(nn.LayerNorm):
    """A LayerNorm over (..., C) that leaves some channels out of its statistics."""

    def __init__(self, layer: nn.LayerNorm, gone: Sequence[int]) -> None:
        super().__init__(layer.normalized_shape, layer.eps)
        self.load_state_dict(layer.state_dict(), strict=False)
        counted = torch.ones(layer.normalized_shape)
        self.register_buffer("counted", counted.index_fill(0, torch.tensor(gone), 0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised; zero where a channel is left out."""
        counted: torch.Tensor = self.get_buffer("counted")
        share = counted / counted.sum()
        mean = (x * share).sum(-1, keepdim=True)
        variance = ((x - mean).square() * share).sum(-1, keepdim=True)
        found: torch.Tensor = (x - mean) * torch.rsqrt(variance + self.eps) * counted
        found = found * self.weight if self.weight is not None else found
        return found + self.bias if self.bias is not None else found
