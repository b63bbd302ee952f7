"""Noisy speech to learn from: voices made to vary, rooms, microphones, and noise of many kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from converters.sound.mixing import (
    coloured_noise,
    narrowed,
    some_piece,
    talking_rms,
    through_microphone,
)
from converters.sound.rooms import impulse_response, in_room, some_room
from edge_sdk.audio.samples import Floats

Chance = np.random.Generator

RATE_HZ: Final = 16000
SNR_DB: Final = (-5.0, 20.0)
LEVEL_DB: Final = (-45.0, -12.0)
"""Of the speech, full scale being 0."""
_WANDER: Final = 0.012
"""By how much a real voice's pitch is never quite steady."""
_SMALL: Final = 1e-6


def noisy_speech(
    speech: Sequence[Floats], noise: Sequence[Floats], chance: Chance, size: int
) -> tuple[Floats, Floats]:
    """A noisy piece and the speech in it, (size,) each, at 16 kHz.

    Echoes of the room belong to the speech: they are not for the network to remove.

    Args:
        speech: utterances.
        noise: recordings; noise is only made up where there are none.
        chance: decides.
        size: samples.
    """
    clean = _voice(speech, chance, size)
    other = _noise(speech, noise, chance, size)
    if chance.random() < 0.25:
        other = other + _level(chance, 0.3, 1.0) * _noise(speech, noise, chance, size)
    narrow = chance.random()
    if narrow < 0.3:  # a telephone, or a recording of old
        clean = narrowed(clean, RATE_HZ, chance.uniform(3200.0, 4000.0))
    if narrow < 0.2:
        other = narrowed(other, RATE_HZ, chance.uniform(3200.0, 4000.0))
    clean = clean * (10 ** (chance.uniform(*LEVEL_DB) / 20) / max(talking_rms(clean), _SMALL))
    ratio = 10 ** (-chance.uniform(*SNR_DB) / 20)
    other = other * (ratio * talking_rms(clean) / max(_loudness(other), _SMALL))
    both = clean + other
    louder = max(1.0, float(np.abs(both).max()) / 0.99)
    return (both / louder).astype(np.float32), (clean / louder).astype(np.float32)


def played(sound: Floats, speed: float, size: int, chance: Chance, wander: float = 0.0) -> Floats:
    """(size,) of a sound faster or slower, and so higher or lower, at a speed that wanders."""
    speeds = np.full(size, speed)
    if wander:
        turns = chance.uniform(1.5, 6.0) / RATE_HZ * np.arange(size)
        speeds *= 1 + wander * np.sin(2 * np.pi * turns)
    places = np.minimum(np.cumsum(speeds), len(sound) - 1)
    return np.asarray(np.interp(places, np.arange(len(sound)), sound), np.float32)


def _voice(speech: Sequence[Floats], chance: Chance, size: int) -> Floats:
    speed = chance.uniform(0.8, 1.25)
    sound = played(_said(speech, chance, int(size * speed) + 2), speed, size, chance, _WANDER)
    if chance.random() < 0.3:  # breath
        hiss = coloured_noise(size, chance, chance.uniform(-3.0, 3.0)) * np.abs(sound)
        sound = sound + np.float32(chance.uniform(0.05, 0.4)) * hiss
    if chance.random() < 0.7:
        sound = through_microphone(sound, RATE_HZ, chance)
    if chance.random() < 0.4:
        sound = _in_some_room(sound, chance)
    return sound


def _said(speech: Sequence[Floats], chance: Chance, size: int) -> Floats:
    """Utterances that follow on each other, with pauses between."""
    found = np.zeros(size, np.float32)
    at = -int(chance.integers(0, size // 2))
    while at < size:
        one = speech[int(chance.integers(len(speech)))]
        first, last = max(at, 0), min(at + len(one), size)
        if last > first:
            found[first:last] = one[first - at : last - at]
        at += len(one) + int(chance.integers(0, RATE_HZ // 2))
    return found


def _noise(speech: Sequence[Floats], noise: Sequence[Floats], chance: Chance, size: int) -> Floats:
    if noise and chance.random() < 0.6:
        speed = chance.uniform(0.7, 1.4)
        found = played(some_piece(noise, int(size * speed) + 2, chance), speed, size, chance)
    elif chance.random() < 0.2:  # people who talk at the same time
        talk = [_said(speech, chance, size) for _ in range(int(chance.integers(3, 9)))]
        found = np.asarray(np.sum(talk, axis=0), np.float32)
    else:
        found = MADE_UP[int(chance.integers(len(MADE_UP)))](chance, size)
    if chance.random() < 0.5:
        found = through_microphone(found, RATE_HZ, chance)
    return _in_some_room(found, chance) if chance.random() < 0.2 else found


def _in_some_room(sound: Floats, chance: Chance) -> Floats:
    return in_room(sound, impulse_response(some_room(chance), RATE_HZ, chance))


def wandering(chance: Chance, size: int) -> Floats:
    """Noise between white and brown, whose loudness may wander."""
    found = coloured_noise(size, chance, chance.uniform(0.0, 6.0))
    if chance.random() < 0.5:
        places, gains = np.linspace(0, size, 8), 10 ** chance.uniform(-0.8, 0.3, 8)
        found = found * np.interp(np.arange(size), places, gains).astype(np.float32)
    return found


def bursts(chance: Chance, size: int) -> Floats:
    """Clicks, knocks and cracks: noise and tones that die away, over a faint noise."""
    found = np.float32(1e-3) * coloured_noise(size, chance, 3.0)
    for _ in range(int(chance.integers(2, 25))):
        first, length = int(chance.integers(size)), RATE_HZ * 10 ** chance.uniform(-2.5, -0.5)
        steps = np.arange(min(int(length), size - first))
        one = chance.standard_normal(len(steps))
        if chance.random() < 0.4:
            one = np.sin(2 * np.pi * 10 ** chance.uniform(2.0, 3.7) / RATE_HZ * steps)
        fading = np.exp(-5.0 * steps / length) * _level(chance, 0.1, 1.0)
        found[first : first + len(steps)] += (one * fading).astype(np.float32)
    return found


def humming(chance: Chance, size: int) -> Floats:
    """Motors, mains and horns: overtones of a pitch that may wander, and some noise."""
    pitch_hz = 10 ** chance.uniform(1.6, 2.9)
    places, drift = np.linspace(0, size, 6), chance.uniform(0.9, 1.1, 6)
    wander = np.interp(np.arange(size), places, drift) ** chance.integers(0, 3)
    phase = 2 * np.pi * np.cumsum(pitch_hz * wander) / RATE_HZ
    found = _level(chance, 0.05, 2.0) * coloured_noise(size, chance, chance.uniform(0.0, 6.0))
    for overtone in range(1, min(24, int(7000 / pitch_hz)) + 1):
        height = _level(chance, 0.05, 1.0) / overtone
        found += (height * np.sin(overtone * phase + chance.uniform(0, 6))).astype(np.float32)
    return found


MADE_UP: Final[tuple[Callable[[Chance, int], Floats], ...]] = (
    wandering,
    wandering,
    bursts,
    humming,
)


def _level(chance: Chance, low: float, high: float) -> np.float32:
    """Between the two, on a scale of decibels."""
    return np.float32(math.exp(chance.uniform(math.log(low), math.log(high))))


def _loudness(sound: Floats) -> float:
    """Root mean square of the louder half of the 20 ms pieces, so that rare clicks are not huge."""
    piece = RATE_HZ // 50
    powers = np.square(sound[: len(sound) // piece * piece]).reshape(-1, piece).mean(axis=1)
    return float(np.sqrt(np.sort(powers)[len(powers) // 2 :].mean()))
