"""Which channels matter: a score per channel of each group, higher is more important."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import nn

from converters.norm_statistics import Batch
from converters.slim.groups import Entry, Group, owner
from converters.slim.narrow import tensors_of
from converters.slim.statistics import input_energy

Method = Literal["l1", "l2", "bn", "taylor", "activation"]
METHODS: tuple[str, ...] = get_args(Method)
Scores = dict[str, torch.Tensor]
Loss = Callable[[nn.Module], torch.Tensor]


def importance(
    module: nn.Module,
    groups: Sequence[Group],
    method: Method,
    batches: Sequence[Batch] = (),
    loss: Loss | None = None,
) -> Scores:
    """Scores (channels,) by group name.

    Args:
        module: in evaluation mode.
        groups: of the module.
        method: ``l1`` and ``l2``: size of the weights that make a channel (Li et al., "Pruning
            Filters for Efficient ConvNets", ICLR 2017); ``bn``: the BatchNorm's scale (Liu et
            al., "Network Slimming", ICCV 2017; ``l2`` where there is none); ``taylor``: first
            order change of the loss (Molchanov et al., CVPR 2019); ``activation``: what the
            readers receive from it, the energy of the input times that of the weights.
        batches: unlabelled samples, for ``activation``.
        loss: of the module on some data, for ``taylor``.
    """
    tensors = tensors_of(module)
    if method == "activation":
        return _activation(module, groups, tensors, batches)
    if method == "taylor":
        return _taylor(module, groups, tensors, loss)
    return {group.name: _weights(module, group, tensors, method) for group in groups}


def ranking(scores: Scores) -> dict[str, list[int]]:
    """Channels of each group, the most important first; ties keep their order."""
    return {
        name: torch.argsort(values, descending=True, stable=True).tolist()
        for name, values in scores.items()
    }


def per_channel(values: torch.Tensor, entry: Entry) -> torch.Tensor:
    """Sum of a value per index along the axis over the indexes of each channel."""
    return values[torch.tensor(entry.positions)].sum(1)


def _weights(
    module: nn.Module, group: Group, tensors: dict[str, torch.Tensor], method: str
) -> torch.Tensor:
    total = torch.zeros(group.size)
    if method == "bn":
        for entry in group.entries:
            layer = module.get_submodule(owner(entry.tensor))
            scale = entry.tensor.endswith("weight") and tensors[entry.tensor].ndim == 1
            if scale and isinstance(layer, nn.modules.batchnorm._NormBase):
                total += per_channel(tensors[entry.tensor].detach().abs(), entry)
        if bool((total > 0).any()):
            return total
    for entry in group.entries:
        tensor = tensors[entry.tensor].detach()
        if entry.reads or tensor.ndim < 2:
            continue
        rows = tensor.movedim(entry.axis, 0).flatten(1)
        size = rows.abs().sum(1) if method == "l1" else rows.square().sum(1)
        total += per_channel(size, entry)
    return total


def _activation(
    module: nn.Module,
    groups: Sequence[Group],
    tensors: dict[str, torch.Tensor],
    batches: Sequence[Batch],
) -> Scores:
    energy = input_energy(module, groups, batches)
    found = {}
    for group in groups:
        total = torch.zeros(group.size)
        for entry in group.entries:
            if entry.reads and entry.tensor in energy:
                weight = tensors[entry.tensor].detach().movedim(entry.axis, 0).flatten(1)
                sent = energy[entry.tensor] * weight.square().sum(1)
                total += per_channel(sent / sent.sum().clamp_min(1e-20), entry)
        silent = not bool((total > 0).any())
        found[group.name] = _weights(module, group, tensors, "l2") if silent else total
    return found


def _taylor(
    module: nn.Module,
    groups: Sequence[Group],
    tensors: dict[str, torch.Tensor],
    loss: Loss | None,
) -> Scores:
    if loss is None:
        raise ValueError("taylor needs a loss")
    weights = [t for t in tensors.values() if isinstance(t, nn.Parameter)]
    for weight in weights:
        weight.requires_grad_(True)
    gradients = torch.autograd.grad(loss(module), weights, allow_unused=True)
    by_id = {id(w): g for w, g in zip(weights, gradients, strict=True)}
    found = {}
    for group in groups:
        total = torch.zeros(group.size)
        for entry in group.entries:
            tensor, gradient = tensors[entry.tensor], by_id.get(id(tensors[entry.tensor]))
            if entry.reads or gradient is None:
                continue
            change = (tensor.detach() * gradient).movedim(entry.axis, 0)
            total += per_channel(change.reshape(len(change), -1).sum(1), entry)
        found[group.name] = total.abs()
    for weight in weights:
        weight.requires_grad_(False)
    return found
