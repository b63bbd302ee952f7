"""A causal network that tells speech from noise: convolution in time, refinement in frequency.

Its input are the features of ``edge_sdk/audio/spectrum.py``, its output a complex factor for every
band. One module serves both ways to run it: over a whole recording with empty memories, and one
frame at a time with the memories that the step before gave.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEATURES = 3
_FIRST = 16
"""Channels at half of the bands."""


class Recurrent(nn.Module):
    """Gated recurrent units over time, the same for every row (Cho et al. 2014).

    Written out, because exporters know no GRU: the reset gate works on the product, as PyTorch's.
    """

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.gru = nn.GRU(width, units, batch_first=True)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, T, width) and (rows, units) to (rows, T, units) and what is remembered."""
        if x.shape[1] > 1:
            found, after = self.gru(x, before[None].contiguous())
            return found, after[0]
        gru = self.gru
        taken, kept, taken_bias, kept_bias = gru.all_weights[0]
        new = nn.functional.linear(x[:, 0], taken, taken_bias)
        old = nn.functional.linear(before, kept, kept_bias)
        reset, keep, fresh = new.chunk(3, 1)
        reset_old, keep_old, fresh_old = old.chunk(3, 1)
        keep = torch.sigmoid(keep + keep_old)
        fresh = torch.tanh(fresh + torch.sigmoid(reset + reset_old) * fresh_old)
        after = fresh + keep * (before - fresh)
        return after[:, None], after


class Past(nn.Module):
    """A convolution over time and frequency that sees this frame and those before."""

    def __init__(
        self, taken: int, given: int, frames: int, bands: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(
            taken, given, (frames, bands), (1, stride), (0, bands // 2), groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(given)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, T, F) and (N, C, frames - 1, F) to the same at the given channels."""
        seen = torch.cat([before, x], 2)
        return self.norm(self.conv(seen)), seen[:, :, seen.shape[2] - self.frames + 1 :]


class Refinement(nn.Module):
    """One turn: time by convolution, frequency by convolution, then memory per frequency."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.time = Past(channels, channels, 3, 3)
        self.frequency = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.memory = Recurrent(channels, channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, x: Tensor, before: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, T, F), and both memories after it."""
        y, after = self.time(x, before)
        x = x + torch.relu(self.norm(self.frequency(torch.relu(y))))
        count, channels, frames, bands = x.shape
        rows = x.permute(0, 3, 2, 1).reshape(count * bands, frames, channels)
        y, memory = self.memory(rows, memory.reshape(count * bands, channels))
        y = self.mix(y).reshape(count, bands, frames, channels).permute(0, 3, 2, 1)
        return x + y, after, memory.reshape(count, bands, channels)


class EnhanceNetwork(nn.Module):
    """Factors for every band of every frame.

    Args:
        bands: a multiple of four.
        channels: at a quarter of the bands.
        units: of the memory that sees all bands at once.
        turns: of refinement.
    """

    def __init__(
        self, bands: int = 128, channels: int = 32, units: int = 64, turns: int = 2
    ) -> None:
        super().__init__()
        self.bands, self.channels, self.units = bands, channels, units
        self.enter = nn.Conv2d(FEATURES, _FIRST, (1, 5), (1, 2), (0, 2), bias=False)
        self.enter_norm = nn.BatchNorm2d(_FIRST)
        self.down = Past(_FIRST, channels, 3, 3, stride=2)
        self.turns = nn.ModuleList(Refinement(channels) for _ in range(turns))
        self.narrow = nn.Conv2d(channels, 8, 1)
        self.whole = Recurrent(2 * bands, units)
        self.widen = nn.Linear(units, 2 * bands)
        self.join = nn.Conv2d(channels + 8, channels, 1, bias=False)
        self.join_norm = nn.BatchNorm2d(channels)
        self.up = nn.ConvTranspose2d(channels, _FIRST, (1, 4), (1, 2), (0, 1), bias=False)
        self.up_norm = nn.BatchNorm2d(_FIRST)
        self.leave = nn.ConvTranspose2d(2 * _FIRST, 2, (1, 4), (1, 2), (0, 1))

    def memories(self, count: int) -> list[Tensor]:
        """Empty memories for so many streams."""
        quarter = self.bands // 4
        found = [torch.zeros(count, _FIRST, 2, self.bands // 2)]
        for _ in self.turns:
            found.append(torch.zeros(count, self.channels, 2, quarter))
            found.append(torch.zeros(count, quarter, self.channels))
        return [*found, torch.zeros(count, self.units)]

    def forward(self, x: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, T, bands) and memories to (N, 2, T, bands) and memories.

        The first of the two is the real part of the factor, 0 to 1; the second its imaginary part,
        -1 to 1.
        """
        first, *rest, last = memories
        wide = torch.relu(self.enter_norm(self.enter(x)))
        h, kept = self.down(wide, first)
        h, after = torch.relu(h), [kept]
        for at, turn in enumerate(self.turns):
            h, kept, memory = turn(h, rest[2 * at], rest[2 * at + 1])
            after += [kept, memory]
        h, last = self._all_bands(h, last)
        h = torch.relu(self.up_norm(self.up(h)))
        both = self.leave(torch.cat([h, wide], 1))
        factors = torch.cat([torch.sigmoid(both[:, :1]), torch.tanh(both[:, 1:])], 1)
        return (factors, *after, last)

    def _all_bands(self, h: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        count, _, frames, quarter = h.shape
        rows = torch.relu(self.narrow(h)).permute(0, 2, 1, 3).reshape(count, frames, -1)
        y, after = self.whole(rows, before)
        y = self.widen(y).reshape(count, frames, 8, quarter).permute(0, 2, 1, 3)
        return torch.relu(self.join_norm(self.join(torch.cat([h, torch.relu(y)], 1)))), after
