"""The task of ``benchmarks/supernet.py``: scanned digits, turned, shifted and noisy.

scikit-learn's 1,797 digits; a third is held out before anything is distorted, and each of those is
distorted several times. On clean digits every sub-network is right, and nothing could be told.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from converters.supernet.space import Elastic
from converters.task import Preprocess

BATCH = 64
HELD_OUT = 600
COPIES = 4
MEAN, STD = 64.0, 80.0

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@functools.cache
def scans(held_out: bool) -> tuple[npt.NDArray[np.uint8], Labels]:
    """(N, 48, 48) uint8 and classes, in a fixed shuffled order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(11).permutation(len(data.target))
    chosen = order[:HELD_OUT] if held_out else order[HELD_OUT:]
    images = [cv2.resize(np.uint8(data.images[i] * 15.9), (48, 48)) for i in chosen]
    return np.stack(images), data.target[chosen].astype(np.int64)


def distorted(
    images: npt.NDArray[np.uint8], random: np.random.Generator, height: int, width: int
) -> torch.Tensor:
    """Turned by up to 35 degrees, scaled, shifted, with noise; (N, 1, height, width) float32.

    The same generator state gives the same distortions at every size.
    """
    found = np.empty((len(images), 1, height, width), np.float32)
    for index, image in enumerate(images):
        angle, scale = random.uniform(-35, 35), random.uniform(0.6, 1.1)
        matrix = cv2.getRotationMatrix2D((24, 24), float(angle), float(scale))
        matrix[:, 2] += random.uniform(-5, 5, size=2)
        turned = cv2.warpAffine(image, matrix, (48, 48)).astype(np.float32)
        turned += random.normal(0, 45, turned.shape)
        found[index, 0] = cv2.resize(turned, (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy((found - MEAN) / STD)


@functools.cache
def evaluation(height: int, width: int) -> tuple[torch.Tensor, Labels]:
    """Every held-out digit several times; one parity of the indexes never has a digit of the
    other, so that the halves that search and report look at share none."""
    images, labels = scans(held_out=True)
    parts = [
        distorted(images, np.random.default_rng(100 + copy), height, width)
        for copy in range(COPIES)
    ]
    return torch.cat(parts), np.tile(labels, COPIES)


class Block(nn.Module):
    """Expand, 5x5 depthwise, project, add (Sandler et al., "MobileNetV2", CVPR 2018)."""

    def __init__(self, inside: int, outside: int, hidden: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(inside, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 5, stride, 2, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.adds = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inside, H, W) to (N, outside, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.expand(x)))
        y = torch.relu(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(y))
        return x + y if self.adds else y


class Network(nn.Module):
    """A stem and three stages of three blocks."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, wide, 3, 2, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()
        )
        sizes = [wide, wide, 2 * wide, 4 * wide]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    Block(sizes[n], sizes[n + 1], 3 * sizes[n], 1 if n == 0 else 2),
                    *(Block(sizes[n + 1], sizes[n + 1], 2 * sizes[n + 1], 1) for _ in range(2)),
                )
                for n in range(3)
            )
        )
        self.head = nn.Linear(sizes[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) to logits (N, 10)."""
        return self.head(torch.relu(self.stages(self.stem(x))).mean((2, 3)))


class Digits:
    """What the benchmark searches."""

    name = "supernet-digits"
    labels = tuple("0123456789")
    preprocess = Preprocess(color="gray", mean=(MEAN,), std=(STD,))
    resolutions = ((32, 32), (24, 24))
    epochs = 20
    wide = 32
    elastic = Elastic(
        depth={"stages.0": 1, "stages.1": 1, "stages.2": 1},
        kernel={"stages.*.depthwise": (3,)},
        widths=(1.0, 0.75, 0.5, 0.25),
    )

    def build(self) -> nn.Module:
        """Of this task's width."""
        return Network(self.wide)

    def example_input(self, height: int, width: int) -> torch.Tensor:
        """Zeros."""
        return torch.zeros(1, 1, height, width)

    def calibration(self, height: int, width: int) -> Iterator[torch.Tensor]:
        """From the training images, distorted like all others."""
        images, _ = scans(held_out=False)
        yield distorted(images[:256], np.random.default_rng(7), height, width)

    def evaluation(self, height: int, width: int) -> Iterator[tuple[torch.Tensor, Labels]]:
        """Everything that was held out."""
        yield evaluation(height, width)

    def training(
        self, height: int, width: int, seed: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Shuffled and distorted."""
        images, labels = scans(held_out=False)
        order = np.random.default_rng(seed).permutation(len(labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            random = np.random.default_rng((seed, start))
            yield (
                distorted(images[chosen], random, height, width),
                torch.from_numpy(labels[chosen]),
            )

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy."""
        return nn.functional.cross_entropy(outputs, targets)


class Quick(Digits):
    """Smaller and shorter."""

    epochs = 32
    wide = 16
    resolutions = ((24, 24), (16, 16))
