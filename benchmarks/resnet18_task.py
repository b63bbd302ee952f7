"""ResNet-18 on digits, or on a folder of photographs, as tasks for the converters' benchmarks.

``Photos`` reads ``TRAIN/CLASS/*.jpg`` below the folder named by ``EDGE_BENCH_PHOTOS``: training
images in ``train``, held-out ones in ``validation`` and ``test``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from converters.task import Preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "digits"))

import digits_data
from task import Digits

PHOTOS = "EDGE_BENCH_PHOTOS"
SIDE = 64
BATCH = 64
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)


class Digits18(Digits):
    """Handwritten digits at 32x32."""

    name = "digits18"
    resolutions = ((32, 32),)
    epochs = 6
    learning_rate = 1e-3

    def build(self) -> nn.Module:
        return ResNet18(1, 10)


class Photos:
    """Ten kinds of clothes, or whatever the folder holds."""

    name = "photos18"
    resolutions = ((SIDE, SIDE),)
    preprocess = Preprocess(color="rgb", mean=MEAN, std=STD)
    epochs = 10
    learning_rate = 1e-3

    def __init__(self) -> None:
        self._folder = Path(os.environ[PHOTOS])
        self.labels = tuple(sorted(p.name for p in (self._folder / "train").iterdir()))

    def build(self) -> nn.Module:
        return ResNet18(3, len(self.labels))

    def example_input(self, height: int, width: int) -> torch.Tensor:
        return torch.zeros(1, 3, height, width)

    def calibration(self, height: int, width: int) -> Iterator[torch.Tensor]:
        images, _ = _photos(self._folder, ("train",))
        yield _normalised(images[:256])

    def evaluation(self, height: int, width: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images, labels = _photos(self._folder, ("validation", "test"))
        yield _normalised(images), torch.from_numpy(labels)

    def training(
        self, height: int, width: int, seed: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        random = np.random.default_rng(seed)
        images, labels = _photos(self._folder, ("train",))
        order = random.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield _normalised(_moved(images[chosen], random)), torch.from_numpy(labels[chosen])

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.05)


@functools.cache
def _photos(folder: Path, parts: tuple[str, ...]) -> tuple[Any, Any]:
    """Images (N, H, W, 3) uint8 in a fixed shuffled order, and class indexes (N,)."""
    classes = sorted(path.name for path in (folder / "train").iterdir())
    images, labels = [], []
    for part in parts:
        for path in sorted((folder / part).glob("*/*.jpg")):
            photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            images.append(cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            labels.append(classes.index(path.parent.name))
    order = np.random.default_rng(0).permutation(len(images))
    return np.stack(images)[order], np.array(labels)[order]


def _normalised(images: Any) -> torch.Tensor:
    scaled = (images.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def _moved(images: Any, random: np.random.Generator) -> Any:
    """Mirrored half of the time and shifted by up to an eighth."""
    moved = np.empty_like(images)
    for index, image in enumerate(images):
        if random.random() < 0.5:
            image = image[:, ::-1]
        shift = random.integers(-SIDE // 8, SIDE // 8 + 1, 2)
        padded = np.pad(image, ((SIDE // 8,) * 2, (SIDE // 8,) * 2, (0, 0)), mode="edge")
        top, left = SIDE // 8 + shift
        moved[index] = padded[top : top + SIDE, left : left + SIDE]
    return moved


class ResNet18(nn.Module):
    """He et al., "Deep Residual Learning" (2016), 18 layers, 11 M weights."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        before = 64
        for stage, width in enumerate((64, 128, 256, 512)):
            blocks.append(Block(before, width, 1 if stage == 0 else 2))
            blocks.append(Block(width, width, 1))
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(512, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.blocks(self.stem(images))).flatten(1))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.two = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.two(self.one(x)) + self.shortcut(x))


__all__ = ["Digits18", "Photos", "ResNet18", "digits_data"]
