"""Sound to judge a network by: the phrase under several conditions, and hours without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from converters.sound.mixing import coloured_noise, mixed, some_piece
from converters.sound.rooms import impulse_response, in_room, some_room
from converters.wakeword.augment import RATE_HZ, between_silence
from converters.wakeword.feature_store import Halves
from converters.wakeword.network import FEATURES, STEP_S
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats

CONDITIONS: Final = ("clean", "10 dB", "0 dB", "far field")
_SNR_DB: Final = {"10 dB": 10.0, "0 dB": 0.0}
_BEFORE_S: Final = 1.0
_AFTER_S: Final = 0.8
_FLOOR_DB: Final = 50.0
"""Of a quiet room below the speaker, where a recording is silent around the phrase."""
_SPEECH_DB: Final = 30.0
_FRAME: Final = 160
LATE_S: Final = 0.6
"""After the end of a phrase in which it must be reported."""

Scorer = Callable[[Halves], Floats]
"""Features (2 T, bands) of one stream to scores (T,)."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Features of one recording of the phrase."""

    features: Halves
    first_step: int
    end_step: int


@dataclass(frozen=True, slots=True)
class Hours:
    """Sound without the phrase, of one kind."""

    kind: str
    streams: tuple[Halves, ...]

    @property
    def hours(self) -> float:
        """How long it lasts."""
        return sum(map(len, self.streams)) * FEATURES.hop_samples / RATE_HZ / 3600.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording of the phrase as a microphone gives it, with a second of room before it."""

    sound: Floats
    first_step: int
    end_step: int


def recorded_under(
    condition: str, recordings: Sequence[Floats], noises: Sequence[Floats], seed: int
) -> Iterator[Recorded]:
    """Each recording (N,) at 16 kHz under a condition.

    Args:
        condition: one of :data:`CONDITIONS`.
        noises: recordings to mix in; made noise where there are none.
        seed: of noises and rooms; the same one gives the same trial.
    """
    chance = np.random.default_rng(seed)
    begin, step = round(_BEFORE_S * RATE_HZ), round(STEP_S * RATE_HZ)
    for recording in recordings:
        first, last = speech_span(recording)
        sound = between_silence(recording, _BEFORE_S, _AFTER_S)
        if condition == "far field":
            room = some_room(chance, far=True)
            sound = in_room(sound, impulse_response(room, RATE_HZ, chance))
        snr_db = _SNR_DB.get(condition)
        if snr_db is None:
            sound = mixed(sound, coloured_noise(len(sound), chance, 3.0), _FLOOR_DB)
        else:
            sound = mixed(sound, _noise(noises, len(sound), chance), snr_db)
        yield Recorded(sound, (begin + first) // step, (begin + last) // step)


def spoken_under(
    condition: str, recordings: Sequence[Floats], noises: Sequence[Floats], seed: int
) -> list[Spoken]:
    """Features of :func:`recorded_under`."""
    return [
        Spoken(stream_features([one.sound]), one.first_step, one.end_step)
        for one in recorded_under(condition, recordings, noises, seed)
    ]


def _noise(noises: Sequence[Floats], size: int, chance: np.random.Generator) -> Floats:
    if not noises:
        return coloured_noise(size, chance, 3.0)
    return some_piece(noises, size, chance)


def speech_span(sound: Floats) -> tuple[int, int]:
    """First and last sample of what is within 30 dB of the loudest 10 ms."""
    count = len(sound) // _FRAME
    if count == 0:
        return 0, len(sound)
    powers = np.square(sound[: count * _FRAME].reshape(count, _FRAME)).mean(axis=1)
    loud = np.flatnonzero(powers >= powers.max() * 10.0 ** (-_SPEECH_DB / 10.0))
    return int(loud[0]) * _FRAME, (int(loud[-1]) + 1) * _FRAME


def stream_features(sounds: Sequence[Floats]) -> Halves:
    """Features (T, bands) float16 of sounds that follow on each other, as a device hears them."""
    front = FrontEnd(FEATURES)
    parts = [front.push(sound).astype(np.float16) for sound in sounds]
    found = np.concatenate(parts) if parts else np.zeros((0, FEATURES.bands), np.float16)
    return found[: len(found) - len(found) % 2]
