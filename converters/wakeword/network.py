"""The network: a trunk that hears sounds of speech, and a small head that knows one phrase.

Depthwise separable convolutions in time that only look back, as in Sørensen et al. 2020, "A
depthwise separable convolutional neural network for keyword spotting on an embedded system", with
everything a device must remember between two steps as explicit states. The trunk learns once, by
spelling thousands of words; each phrase trains a head, and the trunk a little.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from converters.causal import Block
from converters.wakeword.phonemes import SOUNDS
from edge_sdk.contracts.audio import FeatureSpec

FEATURES: Final = FeatureSpec(bands=40)
STRIDE: Final = 2
"""Frames per step: the network decides every 20 ms."""
STEP_S: Final = STRIDE * FEATURES.hop_samples / FEATURES.sample_rate_hz
_STEM: Final = 5


class Shape:
    """How large a network is.

    Args:
        channels: of every block.
        trunk: kernel and dilation of the blocks that spell.
        head: of those that know the phrase.
    """

    def __init__(
        self,
        channels: int = 128,
        trunk: tuple[tuple[int, int], ...] = ((5, 1), (9, 1), (9, 1), (9, 2)),
        head: tuple[tuple[int, int], ...] = ((9, 2), (9, 4)),
    ) -> None:
        self.channels, self.trunk, self.head = channels, trunk, head


class Trunk(nn.Module):
    """Frames of features to channels that tell sounds of speech apart."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        # Kept as numbers: exporting folds layers away, and with them what they know of themselves.
        self.state_sizes = [
            (FEATURES.bands, _STEM - STRIDE),
            *_memories(shape.channels, shape.trunk),
        ]
        self.bands = nn.BatchNorm1d(FEATURES.bands)
        self.stem = nn.Conv1d(FEATURES.bands, shape.channels, _STEM, stride=STRIDE, bias=False)
        self.stem_norm = nn.BatchNorm1d(shape.channels)
        self.blocks = nn.ModuleList(Block(shape.channels, k, d) for k, d in shape.trunk)

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, bands, 2 T) and states to (N, C, T) and states."""
        # The frames' own numbers are remembered, not the normalised ones: zero means silence.
        seen = torch.cat([before[0], x], 2)
        after = [seen[:, :, seen.shape[2] - before[0].shape[2] :]]
        h = torch.relu(self.stem_norm(self.stem(self.bands(seen))))
        for block, state in zip(self.blocks, before[1:], strict=True):
            h, kept = block(h, state)
            after.append(kept)
        return h, after


class Head(nn.Module):
    """Channels of the trunk to one logit per step."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.state_sizes = _memories(shape.channels, shape.head)
        self.blocks = nn.ModuleList(Block(shape.channels, k, d) for k, d in shape.head)
        self.score = nn.Conv1d(shape.channels, 1, 1)

    def forward(self, h: Tensor, *before: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, C, T) and states to (N, 1, T) and states."""
        after = []
        for block, state in zip(self.blocks, before, strict=True):
            h, kept = block(h, state)
            after.append(kept)
        return self.score(h), after


class Speller(nn.Module):
    """The trunk while it learns: which sound at each step, or none."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = Trunk(shape)
        self.letters = nn.Conv1d(shape.channels, 1 + len(SOUNDS), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, bands, 2 T) to logits (N, 1 + sounds, T); the first is none of them."""
        h, _ = self.trunk(x, *_zeros(self.trunk.state_sizes, x))
        letters: Tensor = self.letters(h)
        return letters


class WakeNetwork(nn.Module):
    """Trunk and head, with all states."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = Trunk(shape)
        self.head = Head(shape)

    def sizes(self) -> list[tuple[int, int]]:
        """Channels and steps of every state."""
        return [*self.trunk.state_sizes, *self.head.state_sizes]

    def states(self, count: int) -> list[Tensor]:
        """Empty ones, for so many streams."""
        return [torch.zeros(count, channels, steps) for channels, steps in self.sizes()]

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """(N, bands, 2 T) and states to logits (N, 1, T) and states."""
        split = len(self.trunk.state_sizes)
        h, heard = self.trunk(x, *before[:split])
        logits, known = self.head(h, *before[split:])
        return (logits, *heard, *known)

    def logits(self, x: Tensor) -> Tensor:
        """(N, bands, 2 T), each from silence, to (N, T)."""
        return self.forward(x, *_zeros(self.sizes(), x))[0][:, 0]


class Step(nn.Module):
    """One step on a device: two frames and the states in, one logit and the states out."""

    def __init__(self, network: WakeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        """(N, bands, 2) to (N, 1)."""
        logits, *after = self.network(x, *before)
        return (logits[:, :, 0], *after)

    def states(self, count: int) -> list[Tensor]:
        """Empty ones, for so many streams."""
        return self.network.states(count)


def _memories(channels: int, blocks: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    return [(channels, (kernel - 1) * dilation) for kernel, dilation in blocks]


def _zeros(sizes: list[tuple[int, int]], like: Tensor) -> list[Tensor]:
    return [like.new_zeros(len(like), channels, steps) for channels, steps in sizes]
