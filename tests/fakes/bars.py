"""Source of a task on synthetic images; what is appended brings the network."""

BARS = '''
"""Bright bar at the left, in the middle or at the right: a task that trains in a second."""
import numpy as np
import torch
from torch import nn

from converters.task import Preprocess

NOISE, LIGHT = 0.5, 1.0


def bars(count, height, width, seed):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.normal(0, NOISE, (count, 1, height, width)).astype(np.float32)
    third = width // 3
    for image, label in zip(images, labels, strict=True):
        image[:, :, label * third : (label + 1) * third] += LIGHT
    return torch.from_numpy(images), torch.from_numpy(labels)


class Base:
    labels = ("left", "middle", "right")
    resolutions = ((12, 12), (9, 9))
    preprocess = Preprocess(color="gray", mean=(0.0,), std=(255.0,))
    epochs = 2
    calibrated, held_out, steps = 96, 90, 6

    def build(self):
        torch.manual_seed(1)
        return Net()

    def example_input(self, height, width):
        return torch.zeros(1, 1, height, width)

    def calibration(self, height, width):
        yield bars(self.calibrated, height, width, 1)[0]

    def evaluation(self, height, width):
        yield bars(self.held_out, height, width, 2)

    def training(self, height, width, seed):
        for step in range(self.steps):
            yield bars(24, height, width, 1000 * seed + step)

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)
'''
"""A module with ``bars`` and ``Base``, whose ``build`` asks for a class ``Net``."""
