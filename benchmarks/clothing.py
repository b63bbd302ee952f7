"""Tasks of the converters' benchmark: ResNet-18 on photographs of clothes, or on digits.

The photographs lie outside the repository (``../shared/data/clothing``); where they are absent,
scikit-learn's digits take their place. :class:`Latency` is the full network at 224 with the
weights it was born with: its latency does not depend on them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from converters.task import Preprocess

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "clothing"
BATCH = 48
CALIBRATION = 128

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.short = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inside, H, W) to (N, outside, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.short(x))


class ResNet18(nn.Module):
    """ResNet-18, ``width`` channels in its first stage instead of 64."""

    def __init__(self, classes: int, width: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Block(a, b, 1 if n == 0 else 2), Block(b, b, 1))
                for n, (a, b) in enumerate(itertools.pairwise(sizes))
            )
        )
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) to logits (N, classes)."""
        return self.head(self.stages(self.pool(self.stem(x))).mean((2, 3)))


@functools.cache
def photographs(split: str, side_px: int) -> tuple[Images, Labels]:
    """A split, centre-cropped to squares: (N, side, side, 3) uint8 RGB and classes."""
    images, labels = [], []
    folders = sorted(path for path in (PHOTOGRAPHS / split).iterdir() if path.is_dir())
    for label, folder in enumerate(folders):
        for path in sorted(folder.iterdir()):
            image = cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2)
            if image is None:
                continue
            short = min(image.shape[:2])
            top, left = (image.shape[0] - short) // 2, (image.shape[1] - short) // 2
            square = image[top : top + short, left : left + short]
            small = cv2.resize(square, (side_px, side_px), interpolation=cv2.INTER_AREA)
            images.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
            labels.append(label)
    order = np.random.default_rng(7).permutation(len(labels))
    return np.stack(images)[order], np.asarray(labels, np.int64)[order]


@functools.cache
def digit_images(split: str, side_px: int) -> tuple[Images, Labels]:
    """The digits as RGB squares; every fifth is held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = (np.arange(len(data.target)) % 5 == 0) == (split != "train")
    images = [
        cv2.resize(np.uint8(image * 15.9), (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        for image in data.images[chosen]
    ]
    return np.stack([np.stack([one] * 3, -1) for one in images]), data.target[chosen]


def images_of(split: str, side_px: int) -> tuple[Images, Labels]:
    """Photographs where they are, digits otherwise; ``held-out`` joins validation and test."""
    if not PHOTOGRAPHS.is_dir():
        return digit_images(split, side_px)
    if split == "train":
        return photographs("train", side_px)
    parts = [photographs(name, side_px) for name in ("validation", "test")]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def shifted(side_px: int) -> tuple[npt.NDArray[np.float32], Labels]:
    """The held-out images at four positions, rolled by three pixels, as the network takes them."""
    images, labels = images_of("held-out", side_px)
    ways = ((0, 0), (3, 0), (-3, 0), (0, 3))
    views = np.concatenate([np.roll(images, way, axis=(1, 2)) for way in ways])
    return as_input(views).numpy(), np.tile(labels, len(ways))


def as_input(images: Images) -> torch.Tensor:
    """(N, H, W, 3) uint8 as the network takes it: (N, 3, H, W), mean 127, deviation 60."""
    scaled = (images.astype(np.float32) - 127.0) / 60.0
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


class Clothing:
    """What the benchmark trains at full length."""

    name = "clothing"
    labels = tuple(f"class-{number}" for number in range(10))
    preprocess = Preprocess(color="rgb", mean=(127.0,) * 3, std=(60.0,) * 3)
    resolutions = ((96, 96),)
    epochs = 12
    learning_rate = 2e-3
    width = 32

    def build(self) -> nn.Module:
        """ResNet-18 of this task's width."""
        return ResNet18(len(self.labels), self.width)

    def example_input(self, height: int, width: int) -> torch.Tensor:
        """Zeros."""
        return torch.zeros(1, 3, height, width)

    def calibration(self, height: int, width: int) -> Iterator[torch.Tensor]:
        """From the training images."""
        yield as_input(images_of("train", height)[0][:CALIBRATION])

    def evaluation(self, height: int, width: int) -> Iterator[tuple[torch.Tensor, Labels]]:
        """Everything that was held out."""
        images, labels = images_of("held-out", height)
        yield as_input(images), labels

    def training(
        self, height: int, width: int, seed: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Shuffled; mirrored and shifted at random."""
        images, labels = images_of("train", height)
        random = np.random.default_rng(seed)
        order = random.permutation(len(labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            batch = images[chosen].copy()
            mirrored = random.random(len(chosen)) < 0.5 if PHOTOGRAPHS.is_dir() else []
            batch[mirrored] = batch[mirrored][:, :, ::-1]
            batch = np.roll(batch, tuple(random.integers(-6, 7, 2)), axis=(1, 2))
            yield as_input(batch), torch.from_numpy(labels[chosen])

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy with smoothed labels."""
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)


class Quick(Clothing):
    """Small and short."""

    resolutions = ((64, 64),)
    epochs = 5
    width = 16


class Latency(Clothing):
    """The full network at 224, as latency and file size are quoted for it."""

    name = "resnet18"
    resolutions = ((224, 224),)
    width = 64

    def build(self) -> nn.Module:
        """Born weights; normalisation as after some batches, so that outputs are of a size."""
        torch.manual_seed(0)
        module = super().build()
        module.train()
        with torch.no_grad():
            for _ in range(4):
                module(torch.randn(2, 3, 64, 64))
        return module.eval()

    def calibration(self, height: int, width: int) -> Iterator[torch.Tensor]:
        """Eight images: what is measured is time."""
        yield as_input(images_of("train", height)[0][:8])

    def evaluation(self, height: int, width: int) -> Iterator[tuple[torch.Tensor, Labels]]:
        """Sixteen."""
        images, labels = images_of("held-out", height)
        yield as_input(images[:16]), labels[:16]
