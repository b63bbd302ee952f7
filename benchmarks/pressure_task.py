"""Task of the pressure benchmark: one network whose resolution is the ladder.

Its weights are few and its activations many, so that a lower resolution saves what it promises.
Digits stand for what a camera sees: they need no data from elsewhere.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import clothing

GRAIN = 12.0
"""Deviation of the noise, of 255."""


class Even(nn.Module):
    """Residual blocks, most of them at a quarter of the input's resolution."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        narrow, wide = width // 2, width * 3 // 2
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
        self.stem = nn.Sequential(nn.Conv2d(3, width, 1), nn.ReLU())
        self.pool = nn.Sequential(nn.AvgPool2d(4), nn.BatchNorm2d(width))
        self.blocks = nn.Sequential(
            clothing.Block(width, width, 2),
            clothing.Block(width, 2 * width, 2),
            clothing.Block(2 * width, 2 * width, 1),
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, classes)."""
        return self.head(self.blocks(self.pool(self.stem(x))).mean((2, 3)))


@functools.cache
def scans(split: str) -> tuple[clothing.Images, clothing.Labels]:
    """(N, 8, 8) uint8 and classes; every fifth is held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = (np.arange(len(data.target)) % 5 == 0) == (split != "train")
    return np.uint8(data.images[chosen] * 15.9), data.target[chosen].astype(np.int64)


def frames(images: clothing.Images, random: np.random.Generator, side_px: int) -> clothing.Images:
    """Digits as a camera sees them: turned a little, near or far, off the centre, with noise.

    The same generator state gives the same frames at every size.

    Args:
        images: (N, 8, 8) uint8.
        random: of what varies.
        side_px: of the frames.

    Returns:
        (N, side, side, 3) uint8 RGB.
    """
    found = np.empty((len(images), side_px, side_px, 3), np.uint8)
    for index, image in enumerate(images):
        angle, size = random.uniform(-15, 15), random.uniform(0.8, 1.0)
        noise = np.random.default_rng(random.integers(2**32))
        matrix = cv2.getRotationMatrix2D((3.5, 3.5), float(angle), float(size * side_px / 8))
        room = random.uniform(-1, 1, size=2) * (1 - size) / 2
        matrix[:, 2] += side_px / 2 - 3.5 + room * side_px
        seen = cv2.warpAffine(image, matrix, (side_px, side_px), flags=cv2.INTER_CUBIC)
        grain = noise.normal(0, GRAIN, seen.shape)
        found[index] = np.clip(seen + grain, 0, 255).astype(np.uint8)[..., None]
    return found


class Pressed(clothing.Clothing):
    """Digits at four resolutions."""

    name = "pressed"
    resolutions = ((128, 128), (96, 96), (64, 64), (32, 32))
    epochs = 24
    width = 32
    least_batch, most_batch = 16, clothing.BATCH
    held_out_step = 1

    def build(self) -> nn.Module:
        """The network of this task's width."""
        return Even(len(self.labels), self.width)

    def calibration(self, height, width):
        """From the training images."""
        images, _ = scans("train")
        random = np.random.default_rng(7)
        yield clothing.as_input(frames(images[: clothing.CALIBRATION], random, height))

    def evaluation(self, height, width):
        """What is held out."""
        images, labels = self.held_out(height)
        yield clothing.as_input(images), labels

    def held_out(self, side_px):
        """Every fifth digit, as frames (N, side, side, 3) uint8 RGB and classes (N,)."""
        images, labels = (part[:: self.held_out_step] for part in scans("test"))
        return frames(images, np.random.default_rng(100), side_px), labels

    def training(self, height, width, seed):
        """Shuffled and seen anew; the larger the images, the fewer in a batch.

        Each resolution then takes about as long as any other.
        """
        images, labels = scans("train")
        order = np.random.default_rng(seed).permutation(len(labels))
        fewer = self.most_batch * self.resolutions[-1][0] ** 2 // height**2
        for start in range(0, len(order) - clothing.BATCH + 1, clothing.BATCH):
            chosen = order[start : start + max(self.least_batch, fewer)]
            batch = frames(images[chosen], np.random.default_rng((seed, start)), height)
            yield clothing.as_input(batch), torch.from_numpy(labels[chosen])


class Quick(Pressed):
    """The same, small and hardly trained: enough to see that everything runs."""

    epochs = 2
    width = 16


class Large(Pressed):
    """Digits whose best point needs some twenty MiB more than the cheapest."""

    name = "large"
    resolutions = ((256, 256), (128, 128), (96, 96))
    epochs = 14
    width = 48
    least_batch, most_batch = 6, 16
    held_out_step = 3

    def build(self) -> nn.Module:
        """The network that is large in memory."""
        return Roomy(len(self.labels), self.width)
