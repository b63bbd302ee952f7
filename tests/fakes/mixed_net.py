"""A tiny network with every construct that int8 kernels treat specially."""

from __future__ import annotations

import torch
from torch import nn


class Mixed(nn.Module):
    """A residual addition, a concatenation, a depthwise convolution and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 8, 1)
        self.side = nn.Conv2d(8, 4, 1)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 3)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        y = torch.relu(self.depthwise_norm(self.depthwise(x)))
        x = torch.relu(x + self.point(y))
        x = self.norm(torch.cat([x, self.side(x)], 1))
        x = nn.functional.silu(x)
        x = nn.functional.max_pool2d(x, 2)
        return self.head(self.drop(x.mean((2, 3))))
