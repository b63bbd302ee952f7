"""A building block of networks that listen: causal, its memory an input and an output."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A depthwise convolution in time and a mix of the channels, around a shortcut."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.memory = (kernel - 1) * dilation
        self.time = nn.Conv1d(
            channels, channels, kernel, dilation=dilation, groups=channels, bias=False
        )
        self.time_norm = nn.BatchNorm1d(channels)
        self.mix = nn.Conv1d(channels, channels, 1, bias=False)
        self.mix_norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, T) and what was before it, to (N, C, T) and what to remember."""
        seen = torch.cat([before, x], 2)
        y = torch.relu(self.time_norm(self.time(seen)))
        after = seen[:, :, seen.shape[2] - self.memory :]
        return torch.relu(x + self.mix_norm(self.mix(y))), after
