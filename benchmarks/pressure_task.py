"""Task of the pressure benchmark: one network whose resolution is the ladder.

Its weights are few and its activations many, so that a lower resolution saves what it promises.
Digits stand for what a camera sees: they need no data from elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clothing


class Even(nn.Module):
    """Residual blocks, most of them at a quarter of the input's resolution."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        narrow, wide = width * 3 // 8, width * 3 // 2
        self.stem = nn.Sequential(
            nn.Conv2d(3, narrow, 3, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            clothing.Block(narrow, width, 2),
            *(clothing.Block(width, width, 1) for _ in range(3)),
            clothing.Block(width, wide, 2),
        )
        self.head = nn.Linear(wide, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Roomy(nn.Module):
    """Many channels at full resolution: what a point costs is memory more than time."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.shrink = nn.Sequential(
            nn.Conv2d(width, width, 4, 4, groups=width, bias=False), nn.BatchNorm2d(width)
        )
        self.blocks = nn.Sequential(
            clothing.Block(width, width, 2),
            clothing.Block(width, 2 * width, 2),
            clothing.Block(2 * width, 2 * width, 2),
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        return self.head(self.blocks(torch.relu(self.shrink(self.stem(x)))).mean((2, 3)))


class Pressed(clothing.Clothing):
    """Digits at four resolutions."""

    name = "pressed"
    resolutions = ((128, 128), (96, 96), (64, 64), (40, 40))
    epochs = 10
    width = 64
    least_batch = 8

    def build(self) -> nn.Module:
        """The network of this task's width."""
        return Even(len(self.labels), self.width)

    def calibration(self, height, width):
        """From the training images."""
        yield clothing.as_input(clothing.digit_images("train", height)[0][: clothing.CALIBRATION])

    def evaluation(self, height, width):
        """Every fifth digit."""
        images, labels = clothing.digit_images("test", height)
        yield clothing.as_input(images), labels

    def training(self, height, width, seed):
        """Shuffled and shifted at random; the larger the images, the fewer in a batch.

        Each resolution then takes about as long as any other.
        """
        images, labels = clothing.digit_images("train", height)
        random = np.random.default_rng(seed)
        order = random.permutation(len(labels))
        for start in range(0, len(order) - clothing.BATCH + 1, clothing.BATCH):
            fewer = clothing.BATCH * self.resolutions[-1][0] ** 2 // height**2
            chosen = order[start : start + max(self.least_batch, fewer)]
            shift = tuple(random.integers(-height // 16, height // 16 + 1, 2))
            batch = np.roll(images[chosen], shift, axis=(1, 2))
            yield clothing.as_input(batch), torch.from_numpy(labels[chosen])


class Quick(Pressed):
    """The same, small and hardly trained: enough to see that everything runs."""

    epochs = 1
    width = 16


class Large(Pressed):
    """Digits whose best point needs some twenty MiB more than the cheapest."""

    name = "large"
    resolutions = ((320, 320), (160, 160), (80, 80))
    epochs = 6
    width = 48
    least_batch = 3

    def build(self) -> nn.Module:
        """The network that is large in memory."""
        return Roomy(len(self.labels), self.width)
