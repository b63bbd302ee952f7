"""Spoken digits: a small network of depthwise separable convolutions that only looks back.

Two tasks, one network. ``Keywords`` hears a second at once: train it. ``KeywordsStream`` hears
20 ms at a time and keeps its memory in states: convert it for devices.

    edge model train examples/keywords/task.py:Keywords -o out/keywords.pt
    edge model convert examples/keywords/task.py:KeywordsStream --weights out/keywords.pt \\
        -o out/keywords
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from keywords_data import CLIP_S, LABELS, NONE, RATE_HZ, clips, nothing, placed
from torch import Tensor, nn

from converters.causal import Block
from edge_sdk.audio.features import features
from edge_sdk.contracts.audio import FeatureSpec, SoundInfo, WakeWord
from edge_sdk.contracts.manifest import Preprocess

FEATURES = FeatureSpec(bands=40)
FRAMES = (round(CLIP_S * RATE_HZ) - FEATURES.window_samples) // FEATURES.hop_samples + 1
EVEN = FRAMES - FRAMES % 2
STRIDE = 2
"""Frames per step: the network decides every 20 ms."""
CHANNELS = 48
BLOCKS = ((7, 1), (9, 1), (9, 2), (9, 2))
"""Kernel and dilation; together they look back 0.9 s."""
STEM = 4
HEARD_STEPS = 5
"""Steps whose logits are averaged: the last tenth of a second."""
NONE_SHARE = 0.35
BATCH = 64


class Network(nn.Module):
    """Logits for every step, from frames and the memory of those before."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = nn.BatchNorm1d(FEATURES.bands)
        self.stem = nn.Conv1d(FEATURES.bands, CHANNELS, STEM, stride=STRIDE, bias=False)
        self.stem_norm = nn.BatchNorm1d(CHANNELS)
        self.blocks = nn.ModuleList(Block(CHANNELS, k, d) for k, d in BLOCKS)
        self.head = nn.Conv1d(CHANNELS, len(LABELS), 1)

    def memories(self, count: int) -> list[Tensor]:
        """Empty memories."""
        sizes = [(FEATURES.bands, STEM - STRIDE)] + [(CHANNELS, b.memory) for b in self.blocks]
        return [torch.zeros(count, channels, steps) for channels, steps in sizes]

    def forward(self, x: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        """(N, bands, 2 T) and memories to (N, labels, T) and memories."""
        first, *rest = memories
        # The frames' own numbers are remembered, not the normalised ones: zero means silence.
        seen = torch.cat([first, x], 2)
        after = [seen[:, :, seen.shape[2] - first.shape[2] :]]
        h = torch.relu(self.stem_norm(self.stem(self.bands(seen))))
        for block, before in zip(self.blocks, rest, strict=True):
            h, kept = block(h, before)
            after.append(kept)
        return (self.head(h), *after)


class Whole(nn.Module):
    """A second at once: the mean of the last steps' logits."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, frames, bands) to (N, labels)."""
        frames = x[:, 0].transpose(1, 2)
        logits, *_ = self.network(frames, *self.network.memories(len(x)))
        return logits[:, :, -HEARD_STEPS:].mean(2)


class Stream(nn.Module):
    """One step: two frames and the memories in, logits and the memories out."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, x: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        """(N, bands, 2) to (N, labels)."""
        logits, *after = self.network(x, *memories)
        return (logits[:, :, 0], *after)


def batches(held_out: bool, seed: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` samples (N, 1, frames, bands) with their labels."""
    chance = np.random.default_rng(seed)
    words = tuple(clip for clip in clips() if clip.held_out == held_out)
    order = chance.permutation(len(words))
    for first in range(0, count, BATCH):
        rows, labels = [], []
        for at in range(first, min(first + BATCH, count)):
            if chance.random() < NONE_SHARE:
                sound, label = nothing(chance, words), LABELS.index(NONE)
            else:
                clip = words[order[at % len(words)]]
                sound, label = placed(clip.samples, chance), clip.label
            rows.append(features(sound, FEATURES)[:EVEN])
            labels.append(label)
        yield torch.from_numpy(np.stack(rows))[:, None], torch.tensor(labels)


class Keywords:
    """Which digit was said in this second, if any?"""

    name = "keywords"
    labels = LABELS
    preprocess = Preprocess(color="gray", mean=(0.0,), std=(1.0,))
    resolutions = ((EVEN, FEATURES.bands),)
    epochs = 12
    learning_rate = 3e-3

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return Whole()

    def example_input(self, height: int, width: int) -> Tensor:
        return torch.zeros(1, 1, height, width)

    def calibration(self, height: int, width: int) -> Iterator[Tensor]:
        for batch, _ in batches(held_out=False, seed=1, count=256):
            yield batch

    def evaluation(self, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches(held_out=True, seed=2, count=1000)

    def training(self, height: int, width: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches(held_out=False, seed=1000 + seed, count=2560)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.05)


class KeywordsStream:
    """The same network, 20 ms at a time."""

    kind = "generic"
    name = "keywords"
    tolerance = 0.3
    sequence_steps = EVEN // STRIDE
    states = tuple((i, i) for i in range(1, 2 + len(BLOCKS)))
    sound = SoundInfo(
        features=FEATURES,
        frames_per_step=STRIDE,
        labels=LABELS,
        activation="softmax",
        words=tuple(
            WakeWord(label=word, output=i, cutoff=0.5, window_steps=10, refractory_s=0.6)
            for i, word in enumerate(LABELS[:-1])
        ),
    )

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return Stream()

    def example_input(self, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.zeros(1, FEATURES.bands, STRIDE), *Network().memories(1))

    def calibration(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        yield from self._seconds(held_out=False, seed=3, count=10)

    def evaluation(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        yield from self._seconds(held_out=True, seed=4, count=20)

    def _seconds(self, held_out: bool, seed: int, count: int) -> Iterator[tuple[Tensor, ...]]:
        """Seconds of sound, step by step; the converter fills the memories in."""
        for batch, _ in batches(held_out, seed, count):
            for second in batch[:, 0]:
                steps = second.reshape(EVEN // STRIDE, STRIDE, FEATURES.bands).transpose(1, 2)
                yield (steps.contiguous(), *Network().memories(len(steps)))
