"""Features of many clips in one array, as training reads them: batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from converters.wakeword.ears import Halves
from converters.wakeword.network import FEATURES, STRIDE
from edge_sdk.audio.features import features
from edge_sdk.audio.samples import Floats

_POOL: Final = 50
"""Batches whose clips are sorted by length together."""


class FeatureStore:
    """Spectrograms (T, bands) of even length, end to end."""

    def __init__(self) -> None:
        self._rows: list[Halves] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, sound: Floats) -> None:
        """Those of one more clip (N,) at 16 kHz."""
        # Values are multiples of 1/1024 below 100: half precision keeps what matters of them.
        found = features(sound, FEATURES)
        self.add_features(found.astype(np.float16))

    def add_features(self, found: Halves) -> None:
        """A spectrogram (T, bands) that was made already; an odd last frame is dropped."""
        self._rows.append(found[: len(found) - len(found) % STRIDE])

    def row(self, index: int) -> Halves:
        """The spectrogram (T, bands) of a clip."""
        return self._rows[index]

    def frames(self, index: int) -> int:
        """Of a clip."""
        return len(self._rows[index])

    def batch(self, indexes: Sequence[int]) -> Tensor:
        """(N, bands, T) float32; shorter clips end in zeros."""
        return padded([self._rows[index] for index in indexes])


def padded(rows: Sequence[Halves]) -> Tensor:
    """Spectrograms (T, bands) as (N, bands, T) float32; shorter ones end in zeros."""
    found = np.zeros((len(rows), max(map(len, rows)), FEATURES.bands), np.float32)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return torch.from_numpy(found.transpose(0, 2, 1).copy())


def batches(lengths: Sequence[int], size: int, chance: np.random.Generator) -> Iterator[list[int]]:
    """The index of every clip once, in batches of clips of similar length."""
    order = chance.permutation(len(lengths))
    for first in range(0, len(lengths), size * _POOL):
        pool = sorted(map(int, order[first : first + size * _POOL]), key=lengths.__getitem__)
        cut = [pool[i : i + size] for i in range(0, len(pool), size)]
        for number in chance.permutation(len(cut)):
            yield cut[int(number)]
