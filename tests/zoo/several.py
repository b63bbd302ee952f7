"""More than one input, more than one output."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zoo_base import ZooTask, conv, images


class _Fusion(nn.Module):
    """An image, a vector of measurements and the number of a category."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Sequential(conv(3, 8, 3, 2), conv(8, 16, 3, 2), nn.AdaptiveAvgPool2d(1))
        self.sensors, self.category = nn.Linear(6, 12), nn.Embedding(5, 4)
        self.head = nn.Linear(16 + 12 + 4, 3)

    def forward(self, image: Tensor, values: Tensor, category: Tensor) -> Tensor:
        parts = (self.eye(image).flatten(1), torch.relu(self.sensors(values)))
        return self.head(torch.cat((*parts, self.category(category).flatten(1)), 1))


class MultiInput(ZooTask):
    """Three inputs of three kinds."""

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (
            images(count, 3, height, width),
            torch.randn(count, 6),
            torch.randint(0, 5, (count, 1)),
        )

    def net(self) -> nn.Module:
        return _Fusion()


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 8, 3, 2), conv(8, 16, 3, 2))
        self.mask = nn.Conv2d(16, 2, 1)
        self.label, self.box = nn.Linear(16, 5), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        body = self.body(x)
        pooled = body.mean((2, 3))
        return self.mask(body), (self.label(pooled), self.box(pooled).sigmoid())


class MultiOutput(ZooTask):
    """A map, scores and a box; the last two nested, as users write them."""

    def net(self) -> nn.Module:
        return _Heads()
