"""Per-tensor asymmetric int8 ranges of activations: observed or learned, then frozen.

Fake quantization with the straight-through estimator follows Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018); learned steps
follow Esser et al., "Learned Step Size Quantization" (2020), with the zero point kept as observed.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import nn

LOW, HIGH = -128, 127
"""Of an int8 activation."""
_MOMENTUM = 0.02
"""Weight of a new batch in the moving range."""
_SMALLEST_STEP = 1e-8

Phase = Literal["observe", "track", "learn", "frozen", "emit"]
"""``observe``: only watch; ``track``: quantize with a moving range; ``learn``: quantize with a
trained step; ``frozen``: quantize with what was found; ``emit``: the same through the operators
that exporters translate to Q/DQ."""


class ActivationRange(nn.Module):
    """Quantizes one activation tensor, and finds out where its range lies.

    Args:
        fixed: (scale, zero point) of operators whose output range is known, such as a sigmoid's.
    """

    low: torch.Tensor
    high: torch.Tensor
    scale: torch.Tensor
    """() float32."""
    zero_point: torch.Tensor
    """() int64, -128..127."""

    def __init__(self, fixed: tuple[float, int] | None = None) -> None:
        super().__init__()
        scale, zero_point = fixed or (1.0, 0)
        self.fixed = fixed is not None
        self.phase: Phase = "observe"
        self.step: nn.Parameter | None = None
        self._numbers = (scale, zero_point)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.int64))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values on the int8 grid (as they are while only observing)."""
        if self.phase == "emit":
            return emitted(values, *self._numbers)
        if self.phase == "observe":
            self._widen(values.detach())
            return values
        if self.phase == "track" and self.training:
            self._follow(values.detach())
        if self.phase == "learn" and self.step is not None:
            return _learned(values, self.step, self.zero_point)
        return torch.fake_quantize_per_tensor_affine(
            values, self.scale, self.zero_point.to(torch.int32), LOW, HIGH
        )

    def enter(self, phase: Phase) -> None:
        """Go on to another phase."""
        if phase == "learn" and not self.fixed:
            self.step = nn.Parameter(self.scale.clone())
        elif self.step is not None and phase != "learn":
            self.scale.copy_(self.step.detach().abs().clamp_min(_SMALLEST_STEP))
            self.step = None
        # The TFLite exporter writes scales into types: it needs numbers, not tensors.
        self._numbers = (float(self.scale), int(self.zero_point))
        self.phase = phase

    def _widen(self, values: torch.Tensor) -> None:
        """Take the plain minimum and maximum in."""
        torch.minimum(self.low, values.min(), out=self.low)
        torch.maximum(self.high, values.max(), out=self.high)
        self._settle()

    def _follow(self, values: torch.Tensor) -> None:
        """Move towards a batch's range; zero always stays inside."""
        self.low.lerp_(values.min().clamp_max(0.0), _MOMENTUM)
        self.high.lerp_(values.max().clamp_min(0.0), _MOMENTUM)
        self._settle()

    def _settle(self) -> None:
        if self.fixed:
            return
        step = ((self.high - self.low) / (HIGH - LOW)).clamp_min(_SMALLEST_STEP)
        self.scale.copy_(step)
        self.zero_point.copy_((LOW - self.low / step).round().clamp(LOW, HIGH).to(torch.int64))


def emitted(values: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """Quantize and dequantize by the operators that both exporters know."""
    decomposed = torch.ops.quantized_decomposed
    stored = decomposed.quantize_per_tensor(values, scale, zero_point, LOW, HIGH, torch.int8)
    result: torch.Tensor = decomposed.dequantize_per_tensor(
        stored, scale, zero_point, LOW, HIGH, torch.int8
    )
    return result


def _learned(values: torch.Tensor, step: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    """Fake quantization whose gradient also reaches the step."""
    # The step's gradient sums over every element: scaled down to the size of a weight's.
    share = 1.0 / (values.numel() * HIGH) ** 0.5
    size = (step * share + (step - step * share).detach()).abs().clamp_min(_SMALLEST_STEP)
    position = (values / size).clamp(LOW - int(zero_point), HIGH - int(zero_point))
    rounded = position + (position.round() - position).detach()
    result: torch.Tensor = rounded * size
    return result
