"""Rooms that nobody has to record: impulse responses by mirrored sources, with a diffuse tail.

Early reflections are those of a box (Allen and Berkley 1979, "Image method for efficiently
simulating small-room acoustics"); what follows is noise that decays by 60 dB in the reverberation
time, as in every room whose echoes have become too many to tell apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from converters.sound.mixing import rms
from edge_sdk.audio.samples import Floats

SOUND_M_S: Final = 343.0
_ORDERS: Final = 3
"""Reflections along each axis that are computed one by one."""
_MIXED_S: Final = 0.05
"""From here on the tail is noise."""
_LEAST_M: Final = 0.3
"""Between microphone, speaker and walls."""


@dataclass(frozen=True, slots=True)
class Room:
    """A box with a speaker and a microphone in it, in metres."""

    size_m: tuple[float, float, float]
    source_m: tuple[float, float, float]
    microphone_m: tuple[float, float, float]
    rt60_s: float
    """Time in which sound decays by 60 dB."""

    @property
    def distance_m(self) -> float:
        """From mouth to microphone."""
        return math.dist(self.source_m, self.microphone_m)


def some_room(chance: np.random.Generator, far: bool = False) -> Room:
    """A room of a flat, or for ``far`` one with at least two metres between the two."""
    size = (chance.uniform(2.5, 7.0), chance.uniform(2.5, 9.0), chance.uniform(2.3, 3.2))
    rt60_s = chance.uniform(0.4, 0.8) if far else chance.uniform(0.12, 0.6)
    room = Room(size, _somewhere(size, chance), _somewhere(size, chance), float(rt60_s))
    for _ in range(100):
        if room.distance_m >= (2.0 if far else 0.5):
            break
        room = Room(size, _somewhere(size, chance), _somewhere(size, chance), float(rt60_s))
    return room


def _somewhere(
    size: tuple[float, float, float], chance: np.random.Generator
) -> tuple[float, float, float]:
    x, y, z = (float(chance.uniform(_LEAST_M, side - _LEAST_M)) for side in size)
    return x, y, z


def impulse_response(room: Room, rate_hz: int, chance: np.random.Generator) -> Floats:
    """What a clap at the source sounds like at the microphone, (N,) float32.

    The direct sound comes first and has the height 1.
    """
    length = max(1, round(room.rt60_s * rate_hz))
    # Sabine: the absorption that gives this reverberation time.
    x, y, z = room.size_m
    surface = 2 * (x * y + x * z + y * z)
    absorption = min(0.161 * x * y * z / (surface * room.rt60_s), 0.99)
    response = np.zeros(length)
    delays, heights = _images(room, math.sqrt(1.0 - absorption))
    at = np.rint((delays - room.distance_m) / SOUND_M_S * rate_hz).astype(np.int64)
    heard = (at >= 0) & (at < length)
    np.add.at(response, at[heard], heights[heard] * room.distance_m)
    _add_tail(response, rate_hz, room.rt60_s, chance)
    return response.astype(np.float32)


def _images(room: Room, reflection: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances in metres of the mirrored sources, and their heights."""
    orders = np.arange(-_ORDERS, _ORDERS + 1)
    offsets, bounces = [], []
    for side, source, microphone in zip(room.size_m, room.source_m, room.microphone_m, strict=True):
        same = 2 * orders * side + source - microphone
        mirrored = 2 * orders * side - source - microphone
        offsets.append(np.concatenate((same, mirrored)))
        bounces.append(np.concatenate((2 * np.abs(orders), np.abs(2 * orders - 1))))
    squares = (
        np.square(offsets[0])[:, None, None]
        + np.square(offsets[1])[None, :, None]
        + np.square(offsets[2])[None, None, :]
    )
    distance = np.sqrt(squares).ravel()
    count = (
        bounces[0][:, None, None] + bounces[1][None, :, None] + bounces[2][None, None, :]
    ).ravel()
    return distance, reflection**count / np.maximum(distance, _LEAST_M)


def _add_tail(
    response: np.ndarray, rate_hz: int, rt60_s: float, chance: np.random.Generator
) -> None:
    """Noise that goes on as loudly as the mirrored sources leave off, in place."""
    first = round(_MIXED_S * rate_hz)
    if first >= len(response):
        return
    decay = 10.0 ** (-3.0 * np.arange(len(response)) / (rt60_s * rate_hz))
    early = response[first // 2 : first]
    level = math.sqrt(float(np.mean(np.square(early)))) / max(float(decay[first]), 1e-6)
    response[first:] = level * decay[first:] * chance.standard_normal(len(response) - first)


def in_room(sound: Floats, response: Floats) -> Floats:
    """The sound (N,) as the microphone hears it, as long and, on average, as loud as before."""
    size = len(sound) + len(response) - 1
    points = 1 << (size - 1).bit_length()
    spectrum = np.fft.rfft(sound, points) * np.fft.rfft(response, points)
    heard = np.fft.irfft(spectrum, points)[: len(sound)]
    before, after = rms(sound), rms(heard)
    return (heard * (before / after if after > 0 else 1.0)).astype(np.float32)
