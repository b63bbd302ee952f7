"""What the tasks of the zoo share: settled weights and reproducible inputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

SAMPLES = 12


class ZooTask:
    """A task whose subclass says what one input looks like and builds the module."""

    kind = "generic"
    resolutions = ((32, 32),)
    tolerance = 0.3
    """Random networks amplify rounding more than trained ones; this is 10 dB."""

    def __init__(self) -> None:
        self.name = type(self).__name__

    def net(self) -> nn.Module:
        """The module, freshly initialised."""
        raise NotImplementedError

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        """``count`` samples; the caller has seeded the generator."""
        return (images(count, 3, height, width),)

    def build(self) -> nn.Module:
        """The module with BatchNorm statistics that fit its inputs."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        module = self.net()
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if norms:
            for norm in norms:
                norm.momentum = None
            with torch.no_grad():
                for _ in range(4):
                    module(*self.inputs(8, *self.resolutions[0]))
        return module.eval()

    def example_input(self, height: int, width: int) -> tuple[Tensor, ...]:
        """One sample."""
        return self._seeded(0, 1, height, width)

    def calibration(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        """One batch."""
        yield self._seeded(1, SAMPLES, height, width)

    def evaluation(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        """Another batch."""
        yield self._seeded(2, SAMPLES, height, width)

    def _seeded(self, seed: int, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        try:
            return self.inputs(count, height, width)
        finally:
            torch.set_rng_state(state)


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth blobs with some noise, about zero mean and unit variance."""
    coarse = torch.randn(count, channels, max(1, height // 8), max(1, width // 8))
    smooth = nn.functional.interpolate(coarse, (height, width), mode="nearest")
    return 0.8 * smooth + 0.4 * torch.randn(count, channels, height, width)


def conv(
    inp: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: str = "relu"
) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    acts = {
        "relu": nn.ReLU,
        "relu6": nn.ReLU6,
        "silu": nn.SiLU,
        "hswish": nn.Hardswish,
        "none": nn.Identity,
    }
    return nn.Sequential(
        nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        acts[act](),
    )


class Gain(nn.Module):
    """Squeeze and excite: one gain per channel, from the channels' means."""

    def __init__(self, channels: int, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.down = nn.Conv2d(channels, max(4, channels // 4), 1)
        self.up = nn.Conv2d(max(4, channels // 4), channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(torch.relu(self.down(self.squeeze(x)))))


class Classify(nn.Module):
    """A body, global average pooling and a linear layer."""

    def __init__(self, body: nn.Module, channels: int, classes: int = 10) -> None:
        super().__init__()
        self.body = body
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x)).flatten(1))
