"""Clean speech to what a microphone in a room hears, and to features that no voice gave.

Few voices must stand for all people. Besides rooms, noises and microphones, the features of a clip
are stretched along the mel axis as if the speaker's vocal tract were longer or shorter (Jaitly and
Hinton 2013, "Vocal tract length perturbation improves speech recognition") and partly covered (Park
et al. 2019, "SpecAugment").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from converters.sound.mixing import (
    at_level,
    at_speed,
    coloured_noise,
    mixed,
    narrowed,
    some_piece,
    through_microphone,
    through_telephone,
)
from converters.sound.rooms import impulse_response, in_room, some_room
from converters.wakeword.network import FEATURES
from edge_sdk.audio.samples import Floats

RATE_HZ: Final = FEATURES.sample_rate_hz
IN_ROOM: Final = 0.45
"""Share of the clips."""
_ROOMS: Final = 48
_FAR_ROOMS: Final = 16
"""Of these."""
Ratios = tuple[tuple[float, float, float], ...]
"""Shares of the clips, and from which to which ratio to the noise they have then, in dB."""
PLAIN: Final[Ratios] = ((1.0, -3.0, 28.0),)
_BEFORE_S: Final = (1.0, 1.6)
_AFTER_S: Final = 0.55
_GAP: Final = 0.3 * RATE_HZ
"""Samples between a clip and what is said beside it, at most."""
_LEVEL_DB: Final = (-38.0, -0.5)
_OTHER_SPEED: Final = 0.7
_SPEED_DEVIATION: Final = 0.1


class Surroundings:
    """Rooms and noises to put clips into.

    Args:
        noises: recordings (N,) at 16 kHz by kind, each kind as likely as the others, be they
            few or thousands; without any, noise is made.
        seed: of the rooms.
        ratios: of clips to noise.
        in_room: share of the clips that are in a room.
        loudest_db: ratio of the clip to the loudest recorded noise; it may be speech, under which
            a phrase is none any more.
    """

    def __init__(
        self,
        noises: Sequence[Sequence[Floats]],
        seed: int,
        ratios: Ratios = PLAIN,
        in_room: float = IN_ROOM,
        loudest_db: float = -math.inf,
    ) -> None:
        self._ratios, self._recorded_db, self._in_room = ratios, loudest_db, in_room
        chance = np.random.default_rng(seed)
        self._noises = [kind for kind in noises if kind]
        self._rooms = [
            impulse_response(some_room(chance, far=number < _FAR_ROOMS), RATE_HZ, chance)
            for number in range(_ROOMS)
        ]

    def noise(self, size: int, chance: np.random.Generator) -> Floats:
        """Some noise (size,)."""
        return self._noise(size, chance)[0]

    def _noise(self, size: int, chance: np.random.Generator) -> tuple[Floats, float]:
        """Some noise (size,), and the least ratio to it."""
        if self._noises and chance.random() < 0.7:
            kind = self._noises[int(chance.integers(len(self._noises)))]
            return some_piece(kind, size, chance), self._recorded_db
        return coloured_noise(size, chance, float(chance.uniform(-2.0, 7.0))), -math.inf

    def heard(self, sound: Floats, chance: np.random.Generator) -> Floats:
        """The clip (N,) somewhere else: each change happens sometimes."""
        if chance.random() < self._in_room:
            sound = in_room(sound, self._rooms[int(chance.integers(len(self._rooms)))])
        # Never without: what synthetic voices leave in silence is learned, and no person has it.
        _, low, high = self._ratios[
            chance.choice(len(self._ratios), p=[r[0] for r in self._ratios])
        ]
        noise, least_db = self._noise(len(sound), chance)
        sound = mixed(sound, noise, max(least_db, float(chance.uniform(low, high))))
        if chance.random() < 0.6:
            sound = through_microphone(sound, RATE_HZ, chance)
        if chance.random() < 0.08:
            sound = through_telephone(narrowed(sound, RATE_HZ, 3800.0))
        level = 6.0 if chance.random() < 0.04 else float(chance.uniform(*_LEVEL_DB))
        return at_level(sound, level)


def between_silence(sound: Floats, before_s: float, after_s: float) -> Floats:
    """The clip with silence around it."""
    before, after = round(before_s * RATE_HZ), round(after_s * RATE_HZ)
    return np.concatenate((np.zeros(before, np.float32), sound, np.zeros(after, np.float32)))


def amid_words(
    sound: Floats, other: Callable[[], Floats], chance: np.random.Generator
) -> tuple[Floats, int]:
    """The clip (N,) in silence, often with other words close before or after it.

    Args:
        sound: the clip.
        other: gives other words; asked only where there are any.
        chance: of everything.

    Returns:
        It all, and the clip's first sample in it.
    """
    before_s = float(chance.uniform(*_BEFORE_S))
    found, start = between_silence(sound, before_s, _AFTER_S), round(before_s * RATE_HZ)

    def spoken() -> tuple[Floats, int]:
        return other() * np.float32(chance.uniform(0.3, 1.2)), int(chance.uniform(0, _GAP))

    if chance.random() < 0.4:
        words, gap = spoken()
        words = words[-int(chance.uniform(0.3, 1.0) * RATE_HZ) :][gap - start :]
        found[start - gap - len(words) : start - gap] += words
    if chance.random() < 0.25:
        words, gap = spoken()
        first = start + len(sound) + gap
        found[first : first + len(words)] += words[: len(found) - first]
    return found, start


def at_some_speed(sound: Floats, chance: np.random.Generator) -> Floats:
    """The clip (N,), often a little faster and higher, or slower and lower.

    Another speaker for a network that has heard few (Ko et al. 2015, "Audio augmentation for speech
    recognition").
    """
    if chance.random() >= _OTHER_SPEED:
        return sound
    return at_speed(sound, float(np.exp(chance.normal(0.0, _SPEED_DEVIATION))))


def disguised(x: Tensor, chance: np.random.Generator) -> Tensor:
    """Features (N, bands, T) of other vocal tracts, partly covered; the input stays as it is."""
    x = torch.bmm(torch.from_numpy(_warps(len(x), x.shape[1], chance)), x)
    means = x.mean(dim=(1, 2), keepdim=True)
    cover = torch.zeros(len(x), x.shape[1], x.shape[2], dtype=torch.bool)
    for row in range(len(x)):
        for _ in range(2):
            if chance.random() < 0.5:
                low = int(chance.integers(0, x.shape[1] - 1))
                cover[row, low : low + int(chance.integers(1, 7))] = True
            if chance.random() < 0.35:
                first = int(chance.integers(0, max(1, x.shape[2] - 1)))
                cover[row, :, first : first + int(chance.integers(2, 11))] = True
    return torch.where(cover, means, x)


def _warps(count: int, bands: int, chance: np.random.Generator) -> Floats:
    """Matrices (count, bands, bands) that read band ``b`` where a stretched tract has it."""
    found = np.zeros((count, bands, bands), np.float32)
    rows = np.arange(bands)
    for number in range(count):
        stretch = float(np.exp(chance.normal(0.0, 0.09)))
        places = np.clip(rows * stretch + chance.normal(0.0, 0.4), 0, bands - 1.001)
        low = places.astype(np.int64)
        share = (places - low).astype(np.float32)
        found[number, rows, low] = 1.0 - share
        found[number, rows, low + 1] += share
    return found
