"""Noisy speech to learn from: voices made to vary, rooms, microphones, and noise of many kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge_sdk.audio.samples import Floats

RATE_HZ = 16000
Chance = np.random.Generator
SNR_DB = (-5.0, 20.0)
LEVEL_DB = (-45.0, -12.0)
"""Of the speech, full scale being 0."""


class Pool:
    """Recordings, of which pieces are taken.

    Args:
        recordings: (N,) each, float32 or int16.
    """

    def __init__(self, recordings: Sequence[np.ndarray]) -> None:
        self._recordings = [one for one in recordings if len(one) > RATE_HZ // 8]

    def __len__(self) -> int:
        return len(self._recordings)

    def take(self, chance: Chance, size: int) -> Floats:
        """(size,) of one recording, from anywhere; a short one is repeated."""
        one = self._recordings[int(chance.integers(len(self._recordings)))]
        if len(one) < size:
            one = np.tile(one, -(-size // len(one)))
        first = int(chance.integers(len(one) - size + 1))
        return _unit(one[first : first + size])

    def fill(self, chance: Chance, size: int) -> Floats:
        """(size,) of recordings that follow on each other, with pauses between."""
        found = np.zeros(size, np.float32)
        at = -int(chance.integers(0, size // 2))
        while at < size:
            one = _unit(self._recordings[int(chance.integers(len(self._recordings)))])
            first, last = max(at, 0), min(at + len(one), size)
            if last > first:
                found[first:last] = one[first - at : last - at]
            at += len(one) + int(chance.integers(0, RATE_HZ // 2))
        return found


def mixed(speech: Pool, noise: Pool | None, chance: Chance, size: int) -> tuple[Floats, Floats]:
    """A noisy piece and the speech in it, (size,) each."""
    clean = _voice(speech, chance, size)
    disturbance = _noise(speech, noise, chance, size)
    if chance.random() < 0.25:
        disturbance = _noise(speech, noise, chance, size) * _level(0.3, 1, chance) + disturbance
    narrow = chance.random()
    if narrow < 0.3:  # a telephone, or a microphone of the last century
        clean = shaped(clean, _low_pass(chance.uniform(3200, 4000)))
        if narrow < 0.2:
            disturbance = shaped(disturbance, _low_pass(chance.uniform(3200, 4000)))
    clean *= 10 ** (chance.uniform(*LEVEL_DB) / 20) / _loudness(clean)
    ratio = 10 ** (-chance.uniform(*SNR_DB) / 20)
    disturbance *= ratio * _loudness(clean) / max(_loudness(disturbance), 1e-6)
    both = clean + disturbance
    loudest = float(np.abs(both).max())
    if loudest > 0.99:
        clean, both = clean / loudest, both / loudest
    return both.astype(np.float32), clean.astype(np.float32)


def _voice(speech: Pool, chance: Chance, size: int) -> Floats:
    factor = chance.uniform(0.8, 1.25)
    # Real pitch is never quite steady.
    sound = bent(speech.fill(chance, int(size * factor) + 2), factor, size, chance, 0.012)
    if chance.random() < 0.7:
        sound = shaped(sound, _colour(chance, 8.0))
    if chance.random() < 0.4:
        sound = in_room(sound, chance)
    if chance.random() < 0.3:  # breath
        soft = np.abs(sound)
        hiss = chance.standard_normal(size).astype(np.float32)
        sound = sound + shaped(hiss * soft, _colour(chance, 6.0)) * chance.uniform(0.02, 0.15)
    return sound


def _noise(speech: Pool, noise: Pool | None, chance: Chance, size: int) -> Floats:
    kinds: list[Callable[[], Floats]] = [
        lambda: _coloured(chance, size),
        lambda: _coloured(chance, size),
        lambda: _bursts(chance, size),
        lambda: _humming(chance, size),
        lambda: _babble(speech, chance, size),
    ]
    if noise is not None and chance.random() < 0.6:
        factor = chance.uniform(0.7, 1.4)
        found = bent(noise.take(chance, int(size * factor) + 2), factor, size, chance, 0.0)
    else:
        found = kinds[int(chance.integers(len(kinds)))]()
    if chance.random() < 0.5:
        found = shaped(found, _colour(chance, 9.0))
    if chance.random() < 0.2:
        found = in_room(found, chance)
    return found


def _coloured(chance: Chance, size: int) -> Floats:
    """Noise with a slope from white to red, whose loudness may wander."""
    slope = chance.uniform(0, 2)
    found = shaped(
        chance.standard_normal(size), lambda hertz: np.maximum(hertz, 40.0) ** (-slope / 2)
    )
    found /= np.abs(found).mean() + 1e-9
    if chance.random() < 0.5:
        found *= np.interp(
            np.arange(size), np.linspace(0, size, 8), 10 ** chance.uniform(-0.8, 0.3, 8)
        )
    return found.astype(np.float32)


def _bursts(chance: Chance, size: int) -> Floats:
    """Clicks, knocks and cracks: noise and tones that die away."""
    found = np.zeros(size, np.float32)
    for _ in range(int(chance.integers(2, 25))):
        first, length = int(chance.integers(size)), int(RATE_HZ * 10 ** chance.uniform(-2.5, -0.5))
        steps = np.arange(min(length, size - first))
        tone = chance.standard_normal(len(steps))
        if chance.random() < 0.4:
            tone = np.sin(2 * np.pi * 10 ** chance.uniform(2, 3.7) / RATE_HZ * steps)
        found[first : first + len(steps)] += (
            tone * np.exp(-5 * steps / length) * _level(0.1, 1, chance)
        )
    return found + 1e-3 * _coloured(chance, size)


def _humming(chance: Chance, size: int) -> Floats:
    """Motors, mains and horns: overtones of a pitch that wanders, and some noise."""
    pitch = 10 ** chance.uniform(1.6, 2.9)
    wander = np.interp(np.arange(size), np.linspace(0, size, 6), chance.uniform(0.9, 1.1, 6))
    phase = 2 * np.pi * np.cumsum(pitch * wander ** chance.integers(0, 3)) / RATE_HZ
    found = np.zeros(size)
    for overtone in range(1, min(24, int(7000 / pitch)) + 1):
        found += (
            np.sin(overtone * phase + chance.uniform(0, 6)) * _level(0.05, 1, chance) / overtone
        )
    return (found + _coloured(chance, size) * _level(0.01, 0.5, chance)).astype(np.float32)


def _babble(speech: Pool, chance: Chance, size: int) -> Floats:
    """People who talk at the same time."""
    return np.sum([speech.fill(chance, size) for _ in range(int(chance.integers(3, 9)))], axis=0)


def bent(sound: Floats, factor: float, size: int, chance: Chance, wander: float) -> Floats:
    """(size,) of a sound played faster or slower, at a speed that wanders a little."""
    speed = np.full(size, factor)
    if wander:
        rate = chance.uniform(1.5, 6.0)
        speed *= 1 + wander * np.sin(2 * np.pi * rate / RATE_HZ * np.arange(size))
    places = np.minimum(np.cumsum(speed), len(sound) - 1)
    return np.interp(places, np.arange(len(sound)), sound).astype(np.float32)


def shaped(sound: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> Floats:
    """A sound with every frequency weighed by ``gain(hertz)``."""
    size = len(sound)
    padded = 1 << (size - 1).bit_length()
    spectrum = np.fft.rfft(sound, padded) * gain(np.fft.rfftfreq(padded, 1 / RATE_HZ))
    return np.fft.irfft(spectrum)[:size].astype(np.float32)


def in_room(sound: Floats, chance: Chance) -> Floats:
    """With the echoes of a room that dies away within 0.1 to 0.6 s, by a random impulse response."""
    length = int(RATE_HZ * chance.uniform(0.1, 0.6))
    steps = np.arange(length)
    echoes = chance.standard_normal(length) * np.exp(-6.9 * steps / length)
    echoes[: int(chance.integers(20, 300))] = 0.0
    energy = np.sqrt(np.square(echoes).sum()) + 1e-9
    echoes *= 10 ** (chance.uniform(-15, 0) / 20) / energy
    echoes[0] = 1.0
    padded = 1 << (len(sound) + length - 1).bit_length()
    spectrum = np.fft.rfft(sound, padded) * np.fft.rfft(echoes, padded)
    return np.fft.irfft(spectrum)[: len(sound)].astype(np.float32)


def _colour(chance: Chance, most_db: float) -> Callable[[np.ndarray], np.ndarray]:
    places = np.array([0, 100, 300, 800, 1600, 3200, 5500, 8000])
    gains_db = chance.uniform(-most_db, most_db, len(places))
    return lambda hertz: 10 ** (np.interp(hertz, places, gains_db) / 20)


def _low_pass(edge_hz: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda hertz: np.clip((edge_hz + 150 - hertz) / 150, 0, 1)


def _level(low: float, high: float, chance: Chance) -> float:
    return float(np.exp(chance.uniform(np.log(low), np.log(high))))


def _loudness(sound: np.ndarray) -> float:
    """Root mean square of the louder half of the 20 ms pieces: of speech, not of its pauses."""
    piece = RATE_HZ // 50
    powers = np.square(sound[: len(sound) // piece * piece]).reshape(-1, piece).mean(1)
    return float(np.sqrt(np.sort(powers)[len(powers) // 2 :].mean())) + 1e-7


def _unit(recording: np.ndarray) -> Floats:
    if recording.dtype == np.int16:
        return recording.astype(np.float32) / np.float32(2**15)
    return recording
