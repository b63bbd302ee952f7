"""Empirical bias correction (Nagel et al., ICCV 2019, section 4.2).

Rounding a layer's weights shifts the mean of its outputs. The shift is measured on calibration
samples, layer after layer with the earlier ones already rounded and corrected, and taken off the
bias. All samples run as one batch, so that one forward pass corrects every layer in turn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from converters.settings import Granularity

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
MAX_SAMPLES = 64


def correct_biases(
    module: nn.Module, inputs: Sequence[torch.Tensor], *, granularity: Granularity = "channel"
) -> tuple[nn.Module, int]:
    """A copy of a module whose biases make up for rounded weights.

    The copy is for quantization only: as floats it is the worse for it.

    Args:
        module: in evaluation mode; not changed.
        inputs: calibration samples, one tensor (N, ...) per input; at most :data:`MAX_SAMPLES`
            of them are used.
        granularity: one weight scale per output channel, or one per tensor.

    Returns:
        The copy and the number of layers that were corrected.
    """
    batch = [tensor[:MAX_SAMPLES] for tensor in inputs]
    means: dict[str, list[torch.Tensor]] = {}

    def note(name: str, mean: torch.Tensor) -> None:
        means.setdefault(name, []).append(mean)

    _watched(module, batch, note)
    trial = copy.deepcopy(module)
    for layer in _layers(trial).values():
        layer.weight = nn.Parameter(rounded(layer.weight, granularity), requires_grad=False)
    shifts: dict[str, list[torch.Tensor]] = {}

    def correct(name: str, mean: torch.Tensor) -> torch.Tensor:
        run = len(shifts.setdefault(name, []))
        shifts[name].append(mean - means[name][run])
        return shifts[name][-1]

    _watched(trial, batch, correct)
    repaired = copy.deepcopy(module)
    for name, layer in _layers(repaired).items():
        if name in shifts:
            # A layer that runs twice has one bias: its runs are averaged.
            shift = torch.stack(shifts[name]).mean(0)
            old = layer.bias if layer.bias is not None else torch.zeros_like(shift)
            layer.bias = nn.Parameter((old - shift).contiguous(), requires_grad=False)
    return repaired, len(shifts)


def rounded(weight: torch.Tensor, granularity: Granularity) -> torch.Tensor:
    """Weights after symmetric int8 rounding, output channels on axis 0."""
    if granularity == "channel":
        peak = weight.abs().flatten(1).amax(1).reshape([-1] + [1] * (weight.ndim - 1))
    else:
        peak = weight.abs().amax()
    scale = (peak / 127).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.clamp(torch.round(weight / scale), -127, 127) * scale


def _layers(module: nn.Module) -> dict[str, Any]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, _LAYERS)}


def _watched(
    module: nn.Module,
    batch: Sequence[torch.Tensor],
    seen: Callable[[str, torch.Tensor], torch.Tensor | None],
) -> None:
    """Run a batch; each layer's mean output per channel is shown, and what is returned taken off.

    Hooks are removed again, whatever happens.
    """
    handles = [
        layer.register_forward_hook(_hook(name, seen)) for name, layer in _layers(module).items()
    ]
    try:
        with torch.no_grad():
            module(*batch)
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, seen: Callable[[str, torch.Tensor], torch.Tensor | None]) -> Any:
    def hook(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        channel = output.ndim - 1 if isinstance(layer, nn.Linear) else 1
        others = [axis for axis in range(output.ndim) if axis != channel]
        shift = seen(name, output.mean(others))
        if not isinstance(shift, torch.Tensor):
            return None
        return output - shift.reshape([-1 if axis == channel else 1 for axis in range(output.ndim)])

    return hook
