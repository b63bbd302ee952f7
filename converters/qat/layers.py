"""Layers with weights on the int8 grid: per channel, symmetric, BatchNorm folded in.

While training, the weights are folded with the running statistics, quantized, and the result is
unfolded for a BatchNorm on the batch's own statistics (Jacob et al. 2018, section 3.2;
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018). Once
frozen, or evaluated, weight and bias are the folded ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from converters.qat.ranges import Phase
from edge_sdk.errors import ConversionError

WEIGHT_HIGH = 127
"""Weights use -127..127: symmetric, so that their zero point is zero."""
_SMALLEST_SCALE = 1e-9
_LARGEST_BIAS = 2.0**30
"""Of a bias in steps of (input scale x weight scale); it is stored as int32."""

Weighted = nn.Conv2d | nn.Linear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer, optionally with the BatchNorm behind it.

    Args:
        layer: keeps its parameters; they go on being trained.
        norm: BatchNorm to fold, which must see nothing but this layer's output.
    """

    scales: torch.Tensor
    """(channels,) float32."""
    stored: torch.Tensor
    """The weights as int8."""
    zero_points: torch.Tensor
    folded_weight: torch.Tensor
    folded_bias: torch.Tensor

    def __init__(self, layer: Weighted, norm: BatchNorm | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm
        self.phase: Phase = "observe"
        self.statistics_frozen = False
        channels = layer.weight.shape[0]
        self.register_buffer("scales", torch.ones(channels))
        self.register_buffer("stored", torch.zeros(layer.weight.shape, dtype=torch.int8))
        self.register_buffer("zero_points", torch.zeros(channels, dtype=torch.int64))
        self.register_buffer("folded_weight", torch.zeros(layer.weight.shape))
        self.register_buffer("folded_bias", torch.zeros(channels))
        self.stored_weights = False
        """Emit int8 constants (ONNX) instead of quantizing float ones (TFLite folds those)."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The layer's answer with weights on the grid."""
        if self.phase == "emit":
            return self._call(values, self._emitted_weight(), self.folded_bias)
        norm = self.norm
        if self.training and norm is not None and not self.statistics_frozen:
            factor = self._factor(norm)
            weight = self._on_grid(self.layer.weight * self._spread(factor))
            out = self._call(values, weight, None)
            shape = [1, -1] + [1] * (out.dim() - 2)
            out = out / factor.reshape(shape)
            if self.layer.bias is not None:
                out = out + self.layer.bias.reshape(shape)
            result: torch.Tensor = norm(out)
            return result
        weight, bias = self.folded()
        return self._call(values, self._on_grid(weight), bias)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias with the BatchNorm in them."""
        norm, bias = self.norm, self.layer.bias
        if norm is None:
            return self.layer.weight, bias
        mean, _ = _statistics(norm)
        factor = self._factor(norm)
        centre = mean if bias is None else mean - bias
        shift = torch.zeros_like(factor) if norm.bias is None else norm.bias
        return self.layer.weight * self._spread(factor), shift - centre * factor

    @torch.no_grad()
    def freeze(self, input_scale: torch.Tensor) -> None:
        """Fix scales and integers.

        Args:
            input_scale: () of the layer's input. A channel whose weights vanish but whose bias
                does not gets a scale large enough for the bias to fit int32.
        """
        weight, bias = self.folded()
        self.folded_bias.zero_()
        if bias is not None:
            self.folded_bias.copy_(bias)
        least = self.folded_bias.abs() / (input_scale * _LARGEST_BIAS)
        self.scales.copy_(torch.maximum(self._scales(weight), least))
        self.stored.copy_(
            (weight / self._spread(self.scales)).round().clamp(-WEIGHT_HIGH, WEIGHT_HIGH)
        )
        self.folded_weight.copy_(self.stored.float() * self._spread(self.scales))

    def _on_grid(self, weight: torch.Tensor) -> torch.Tensor:
        if self.phase == "observe":
            return weight
        return torch.fake_quantize_per_channel_affine(
            weight,
            self._scales(weight.detach()),
            self.zero_points.to(torch.int32),
            0,
            -WEIGHT_HIGH,
            WEIGHT_HIGH,
        )

    def _scales(self, weight: torch.Tensor) -> torch.Tensor:
        return (weight.abs().flatten(1).amax(1) / WEIGHT_HIGH).clamp_min(_SMALLEST_SCALE)

    def _spread(self, per_channel: torch.Tensor) -> torch.Tensor:
        return per_channel.reshape([-1] + [1] * (self.layer.weight.dim() - 1))

    @staticmethod
    def _factor(norm: BatchNorm) -> torch.Tensor:
        """What BatchNorm multiplies each channel by; never quite zero, since it divides too."""
        _, variance = _statistics(norm)
        factor = (variance + norm.eps).rsqrt()
        if norm.weight is not None:
            factor = factor * norm.weight
        return torch.where(factor.abs() < 1e-6, torch.full_like(factor, 1e-6), factor)

    def _emitted_weight(self) -> torch.Tensor:
        decomposed = torch.ops.quantized_decomposed
        bounds = (0, -WEIGHT_HIGH, WEIGHT_HIGH, torch.int8)
        stored = self.stored
        if not self.stored_weights:
            stored = decomposed.quantize_per_channel(
                self.folded_weight, self.scales, self.zero_points, *bounds
            )
        result: torch.Tensor = decomposed.dequantize_per_channel(
            stored, self.scales, self.zero_points, *bounds
        )
        return result

    def _call(
        self, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(values, weight, bias)
        forward: Callable[..., torch.Tensor] = layer._conv_forward  # knows padding modes
        return forward(values, weight, bias)


def _statistics(norm: BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """(channels,) running mean and variance."""
    if norm.running_mean is None or norm.running_var is None:
        raise ConversionError(
            "qat-unsupported",
            "A BatchNorm keeps no statistics, so it cannot be folded.",
            "Build it with track_running_stats=True.",
        )
    return norm.running_mean, norm.running_var
