"""Sound and time series: recurrent networks, convolutions over time, streaming."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from zoo_base import Classify, ZooTask, conv


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(12, 24, batch_first=True)
        self.head = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.cell(x)
        return self.head(out[:, -1])


class Gru(ZooTask):
    """Sixteen steps of a gated recurrent unit."""

    resolutions = ((1, 16),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, width, 12),)

    def net(self) -> nn.Module:
        return _Recurrent(nn.GRU)


class _Carried(nn.Module):
    """One call continues where the last one stopped: hidden and cell state go in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(12, 24, batch_first=True)
        self.head = nn.Linear(24, 6)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h, c) = self.cell(x, (hidden.transpose(0, 1), cell.transpose(0, 1)))
        return self.head(out[:, -1]), h.transpose(0, 1), c.transpose(0, 1)


class Lstm(ZooTask):
    """Eight steps of a long short-term memory with its state as inputs and outputs."""

    resolutions = ((1, 8),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        states = (torch.rand(count, 1, 24) - 0.5, torch.rand(count, 1, 24) - 0.5)
        return (torch.randn(count, width, 12), *states)

    def net(self) -> nn.Module:
        return _Carried()


class _Causal(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.conv = nn.Conv1d(channels, channels, 3, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (self.pad, 0))
        return x + torch.relu(self.norm(self.conv(padded)))


class Tcn(ZooTask):
    """Dilated causal convolutions over (channels, time)."""

    resolutions = ((1, 32),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, 12, width),)

    def net(self) -> nn.Module:
        blocks = [_Causal(16, 2**i) for i in range(3)]
        return nn.Sequential(
            nn.Conv1d(12, 16, 1), *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4)
        )


class DsCnn(ZooTask):
    """Key words from a spectrogram of 49 frames by 10 bands."""

    resolutions = ((49, 10),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, 1, height, width),)

    def net(self) -> nn.Module:
        stem = nn.Sequential(
            nn.Conv2d(1, 16, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        layers = [conv(16, 16, 3, groups=16), conv(16, 16, 1), conv(16, 16, 3, groups=16)]
        return Classify(nn.Sequential(stem, *layers, conv(16, 24, 1)), 24)


class _Broadcast(nn.Module):
    """Two-dimensional part, mean over frequency, temporal part, broadcast back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), groups=channels, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.time = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), groups=channels, bias=False),
            *(nn.BatchNorm2d(channels), nn.SiLU(), nn.Conv2d(channels, channels, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        spread = self.frequency(x)
        return torch.relu(x + spread + self.time(spread.mean(2, keepdim=True)))


class BcResNet(ZooTask):
    """Broadcasted residuals over a spectrogram of 20 bands by 32 frames."""

    resolutions = ((20, 32),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, 1, height, width),)

    def net(self) -> nn.Module:
        body = nn.Sequential(conv(1, 12, 5, (2, 1)), _Broadcast(12), _Broadcast(12))
        return Classify(body, 12)


class _Stream(nn.Module):
    """One new frame and the last ones kept outside: causal convolution step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(10, 16, 3), nn.Conv1d(16, 16, 3)
        self.head = nn.Linear(16, 4)

    def forward(self, frame: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one = torch.cat((one, frame), 2)
        middle = torch.relu(self.first(one))
        two = torch.cat((two, middle), 2)
        last = torch.relu(self.second(two))
        return self.head(last[:, :, 0]), one[:, :, 1:], two[:, :, 1:]


class StreamingConv(ZooTask):
    """A frame of 10 values with two explicit states in and out."""

    resolutions = ((1, 1),)

    def inputs(self, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        return torch.randn(count, 10, 1), torch.randn(count, 10, 2), torch.rand(count, 16, 2)

    def net(self) -> nn.Module:
        return _Stream()
