"""Noise away from speech: a causal network over time and frequency, 16 ms at a time.

python examples/enhance/train.py -o out/enhance.pt --minutes 60
edge model convert examples/enhance/task.py:Enhance --weights out/enhance.pt -o out/enhance
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from enhance_data import SPEC, recorded_noise, speech
from torch import Tensor, nn

from converters.enhance.network import EnhanceNetwork
from converters.enhance.noisy import noisy_speech
from edge_sdk.audio.spectrum import Analysis, cut

STEPS = 125
"""Two seconds."""


class Enhance:
    """One frame of features and the memories to the factors of all bands."""

    kind = "generic"
    name = "enhance"
    tolerance = 0.15
    enhance = SPEC
    sequence_steps = STEPS
    states = tuple((i, i) for i in range(1, 1 + len(EnhanceNetwork().memories(1))))

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return EnhanceNetwork(SPEC.bands)

    def example_input(self, height: int, width: int) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 3, 1, SPEC.bands), *EnhanceNetwork().memories(1))

    def calibration(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        yield from _streams(seed=3, count=8)

    def evaluation(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        yield from _streams(seed=4, count=8)


def _streams(seed: int, count: int) -> Iterator[tuple[Tensor, ...]]:
    """Noisy speech, step by step; the converter fills the memories in."""
    said, noise = list(speech(40, seed)), recorded_noise()
    chance = np.random.default_rng(seed)
    for _ in range(count):
        noisy, _ = noisy_speech(said, noise, chance, STEPS * SPEC.window_samples // 2)
        analysis = Analysis(SPEC)
        found = torch.from_numpy(analysis.features(analysis.spectra(cut(noisy, SPEC))))
        yield (
            found.permute(1, 0, 2)[:, :, None].contiguous(),
            *EnhanceNetwork().memories(len(found[0])),
        )
