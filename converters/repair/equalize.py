"""Cross-layer equalization (Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019): the ranges of consecutive layers' channels are made alike.

The module computes the same function afterwards. Where a BatchNorm stands between, its own scale
and shift are divided: folded into the layer by the exporter, they have the same effect.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from converters.repair.pairs import Norm, Pair, find_pairs

MAX_SWEEPS = 20
_SETTLED = 1e-3
_LARGEST_STEP = 1e4
"""Bound on one rescaling; dead channels would be scaled without end."""


def equalize(module: nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[nn.Module, int]:
    """A copy of a module with equalized channels.

    Args:
        module: in evaluation mode; not changed.
        inputs: one sample.

    Returns:
        The copy and the number of pairs that were equalized; 0 when there are none.
    """
    pairs = find_pairs(module, inputs)
    repaired = copy.deepcopy(module)
    state = dict(repaired.state_dict(keep_vars=True))
    with torch.no_grad():
        for _ in range(MAX_SWEEPS):
            steps = [_equalize_pair(state, pair) for pair in pairs]
            if max(steps, default=0.0) < _SETTLED:
                break
    return repaired, len(pairs)


def _equalize_pair(state: dict[str, torch.Tensor], pair: Pair) -> float:
    """Rescale one pair in place; returns the largest change as |log of the factor|."""
    first, second = state[pair.first], state[pair.second]
    before = _peaks(first) * (_gain(state, pair.norm) if pair.norm else 1.0)
    after = _input_peaks(second, pair)
    factor = torch.sqrt(before / after)
    usable = torch.isfinite(factor) & (factor > 0)
    factor = torch.where(usable, factor, torch.ones_like(factor))
    factor = factor.clamp(1 / _LARGEST_STEP, _LARGEST_STEP)
    if pair.norm is not None:
        state[pair.norm.weight].div_(factor)
        state[pair.norm.bias].div_(factor)
    else:
        first.div_(_along(factor, first, 0))
        if pair.first_bias is not None:
            state[pair.first_bias].div_(factor)
    _scale_inputs(second, factor, pair)
    return float(factor.log().abs().max())


def _gain(state: dict[str, torch.Tensor], norm: Norm) -> torch.Tensor:
    """What a BatchNorm multiplies each channel by."""
    return state[norm.weight].abs() / torch.sqrt(state[norm.variance] + norm.eps)


def _peaks(weight: torch.Tensor) -> torch.Tensor:
    """Largest magnitude per output channel."""
    return weight.abs().flatten(1).amax(1)


def _input_peaks(weight: torch.Tensor, pair: Pair) -> torch.Tensor:
    """Largest magnitude per input channel."""
    if pair.second_kind == "depthwise":
        return _peaks(weight)
    peaks = weight.abs().transpose(0, 1).flatten(1).amax(1)
    return peaks.reshape(-1, pair.repeat).amax(1)


def _scale_inputs(weight: torch.Tensor, factor: torch.Tensor, pair: Pair) -> None:
    if pair.second_kind == "depthwise":
        weight.mul_(_along(factor, weight, 0))
    else:
        weight.mul_(_along(factor.repeat_interleave(pair.repeat), weight, 1))


def _along(factor: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * weight.ndim
    shape[axis] = -1
    return factor.reshape(shape)
