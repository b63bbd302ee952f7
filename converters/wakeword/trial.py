"""Sound to judge a network by: the phrase under several conditions, and hours without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from converters.sound.mixing import coloured_noise, mixed, some_piece
from converters.sound.rooms import impulse_response, in_room, some_room
from converters.wakeword.augment import RATE_HZ, between_silence
from converters.wakeword.ears import Ear, Halves
from edge_sdk.audio.samples import Floats

CONDITIONS: Final = ("clean", "10 dB", "0 dB", "far field")
_SNR_DB: Final = {"10 dB": 10.0, "0 dB": 0.0}
_BEFORE_S: Final = 2.0
"""What a network looks back on, at most: on a device the room was there before the phrase."""
_AFTER_S: Final = 0.8
_FLOOR_DB: Final = 50.0
"""Of a quiet room below the speaker, where a recording is silent around the phrase."""
_SPEECH_DB: Final = 30.0
_FRAME: Final = 160
LATE_S: Final = 0.6
"""After the end of a phrase in which it must be reported."""

Scorer = Callable[[Halves], Floats]
"""Rows of one stream to a score for each step (T,)."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Features of one recording of the phrase."""

    features: Halves
    first_s: float
    """When the phrase begins,"""
    end_s: float
    """and when it has ended."""

    def steps(self, step_s: float) -> tuple[int, int]:
        """First and last at which it may be reported."""
        return int(self.first_s / step_s), int((self.end_s + LATE_S) / step_s) - 1


@dataclass(frozen=True, slots=True)
class Hours:
    """Sound without the phrase, of one kind."""

    kind: str
    streams: tuple[Halves, ...]
    hours: float
    """How long it lasts."""


def hours_of(kind: str, streams: Sequence[Halves], ear: Ear) -> Hours:
    """What an ear has heard."""
    steps = sum(map(len, streams)) / ear.rows
    return Hours(kind, tuple(streams), steps * ear.step_s / 3600.0)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording of the phrase as a microphone gives it, with some room before it."""

    sound: Floats
    first_s: float
    end_s: float


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
    begin = round(_BEFORE_S * RATE_HZ)
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
        yield Recorded(sound, (begin + first) / RATE_HZ, (begin + last) / RATE_HZ)


def spoken_under(
    condition: str, recordings: Sequence[Floats], noises: Sequence[Floats], ear: Ear, seed: int
) -> list[Spoken]:
    """Features of :func:`recorded_under`."""
    return [
        Spoken(ear.hear([one.sound]), one.first_s, one.end_s)
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
