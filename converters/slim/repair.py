"""What can be repaired in a narrowed network without labels and without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from converters.norm_statistics import Batch, recalibrate
from converters.slim.groups import Group, kept_positions, shapes_of
from converters.slim.narrow import tensors_of
from converters.slim.statistics import readers_of

_RIDGE = 1e-3
"""Of the mean second moment, added to the diagonal: channels are often nearly dependent."""


def compensate(
    wide: nn.Module,
    small: nn.Module,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    moments: Mapping[str, torch.Tensor],
) -> None:
    """Let each reader's remaining weights make up for the inputs it lost, in place.

    The dropped inputs are predicted from the kept ones by least squares (He et al., "Channel
    Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, without their selection), and
    the prediction is folded into the weights. The narrow weights are then no longer a prefix of
    the wide ones.

    Args:
        wide: at full width.
        small: :func:`converters.slim.narrow.narrow` of it; changed.
        groups: of the wide module.
        kept: what the small one was made with.
        moments: :func:`converters.slim.statistics.second_moments` of the wide one.
    """
    tensors, shrunk = tensors_of(wide), tensors_of(small)
    kept_axes = kept_positions(groups, kept, shapes_of(tensors))
    reading = {(e.tensor, e.axis) for group in groups for e in group.entries if e.reads}
    for name in readers_of(wide, groups):
        for axis in (0, 1):
            stays = kept_axes.get((name, axis))
            if (name, axis) not in reading or stays is None or name not in moments:
                continue
            weight = tensors[name].detach()
            others = kept_axes.get((name, 1 - axis))
            if others is not None:
                weight = weight.index_select(1 - axis, torch.tensor(others))
            rows = weight.movedim(axis, 0).double()
            gone = sorted(set(range(len(rows))) - set(stays))
            mixed = _prediction(moments[name], stays, gone)
            repaired = rows[stays] + torch.tensordot(mixed, rows[gone], dims=([0], [0]))
            with torch.no_grad():
                shrunk[name].copy_(repaired.movedim(0, axis).float())


def _prediction(moments: torch.Tensor, stays: Sequence[int], gone: Sequence[int]) -> torch.Tensor:
    """(gone, stays) weights that predict the dropped inputs from the kept ones."""
    kept = moments[stays][:, stays]
    ridge = _RIDGE * kept.diagonal().mean().clamp_min(1e-12)
    system = kept + ridge * torch.eye(len(stays), dtype=moments.dtype)
    mixed: torch.Tensor = torch.linalg.solve(system, moments[stays][:, gone]).T
    return mixed


def correct_biases(
    wide: nn.Module,
    small: nn.Module,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    batches: Sequence[Batch],
) -> int:
    """Give every bias the mean that the wide network's output has there, in place.

    Layer by layer in one run (Nagel et al., "Data-Free Quantization Through Weight Equalization
    and Bias Correction", ICCV 2019, section 4.2): each correction is in effect for the layers
    after it. All batches must have one size of samples.

    Returns:
        How many layers were corrected.
    """
    means = _output_means(wide, batches)
    axes = kept_positions(groups, kept, shapes_of(tensors_of(wide)))
    hooks, done = [], 0
    for path, layer in small.named_modules():
        if path not in means:
            continue
        stays = axes.get((f"{path}.bias", 0))
        wanted = means[path] if stays is None else means[path][stays]

        def hook(layer: Any, inputs: Any, output: torch.Tensor, wanted: Any = wanted) -> Any:
            shift = wanted - _mean(layer, output)
            layer.bias.data.add_(shift)
            return output + (shift if isinstance(layer, nn.Linear) else _image(shift, output))

        hooks.append(layer.register_forward_hook(hook))
        done += 1
    try:
        with torch.no_grad():
            small(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    finally:
        for handle in hooks:
            handle.remove()
    return done


def repair(
    wide: nn.Module,
    small: nn.Module,
    groups: Sequence[Group],
    kept: Mapping[str, int],
    batches: Sequence[Batch],
) -> None:
    """BatchNorm recalibration, then bias correction: all that leaves shared weights alone."""
    recalibrate(small, batches)
    size = batches[0][0].shape[1:]
    correct_biases(wide, small, groups, kept, [b for b in batches if b[0].shape[1:] == size])


def _output_means(module: nn.Module, batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """Mean output by channel of every layer that has a bias."""
    sums: dict[str, torch.Tensor] = {}
    hooks = []
    for path, layer in module.named_modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear) and layer.bias is not None:

            def hook(layer: Any, inputs: Any, output: torch.Tensor, path: str = path) -> None:
                sums[path] = sums.get(path, torch.zeros(())) + _mean(layer, output) * len(output)

            hooks.append(layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            for batch in batches:
                module(*batch)
    finally:
        for handle in hooks:
            handle.remove()
    count = sum(len(batch[0]) for batch in batches)
    return {path: total / count for path, total in sums.items()}


def _mean(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    rows = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
    return rows.reshape(-1, rows.shape[-1]).mean(0)


def _image(shift: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return shift.reshape(1, -1, *([1] * (output.ndim - 2)))
