"""Handwritten digits: the example task of edge-sdk.

edge model train examples/digits/task.py:Digits -o weights.pt
edge model convert examples/digits/task.py:Digits --weights weights.pt -o out/digits
"""

from __future__ import annotations

from collections.abc import Iterator

import digits_data
import numpy as np
import torch
from torch import nn

from converters.task import Preprocess

BATCH = 64
CALIBRATION = 256


class Digits:
    """The ten digits, at 32x32 and, more cheaply, at 24x24."""

    name = "digits"
    labels = tuple("0123456789")
    resolutions = ((32, 32), (24, 24))
    preprocess = Preprocess(color="gray", mean=(digits_data.MEAN,), std=(digits_data.STD,))
    epochs = 8

    def build(self) -> nn.Module:
        return DigitNet()

    def example_input(self, height: int, width: int) -> torch.Tensor:
        return torch.zeros(1, 1, height, width)

    def calibration(self, height: int, width: int) -> Iterator[torch.Tensor]:
        frames, _ = digits_data.for_training()
        yield torch.from_numpy(digits_data.as_input(frames[:CALIBRATION], height, width))

    def evaluation(self, height: int, width: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        frames, labels = digits_data.held_out()
        yield (
            torch.from_numpy(digits_data.as_input(frames, height, width)),
            torch.from_numpy(labels),
        )

    def training(
        self, height: int, width: int, seed: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        random = np.random.default_rng(seed)
        frames, labels = digits_data.for_training()
        order = random.permutation(len(frames))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            inputs = digits_data.as_input(
                digits_data.distort(frames[chosen], random), height, width
            )
            yield torch.from_numpy(inputs), torch.from_numpy(self.targets(labels[chosen]))

    def targets(self, labels: digits_data.Labels) -> digits_data.Labels:
        """The classes to train towards."""
        return labels

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.05)


class DigitsMislabelled(Digits):
    """The damaged release of the demo: an honest conversion of a model trained on wrong labels.

    Six of the ten classes are exchanged during training only. Its artifacts are faithful to its
    module, so golden vectors pass; evaluated on true labels, and in service, it is wrong about
    six digits of ten. It exists to show that a trial in service catches what no file check can.
    """

    confused = np.array([0, 7, 2, 8, 9, 5, 6, 1, 3, 4])
    """Class to train towards, by true class."""

    def targets(self, labels: digits_data.Labels) -> digits_data.Labels:
        return self.confused[labels]


class DigitNet(nn.Module):
    """Five convolutions with BatchNorm and ReLU, global average, one linear layer; 206k weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(1, 24, 1), _conv(24, 48, 2), _conv(48, 64, 2), _conv(64, 96, 1), _conv(96, 128, 2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )
