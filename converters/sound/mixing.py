"""What lies between a mouth and a model: noise, distance, the microphone, a codec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_sdk.audio.samples import Floats

_QUIET: Final = 1e-5
"""Root mean square below which there is nothing to measure a ratio against."""
_SILENCE: Final = 1e-4
"""Peak of a piece that is digital silence."""
_FRAME: Final = 320
_MU: Final = 255.0
_TALKING_DB: Final = 25.0


def rms(sound: npt.NDArray[np.floating]) -> float:
    """Root mean square of (N,)."""
    return math.sqrt(float(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0


def talking_rms(sound: Floats) -> float:
    """Of those 20 ms pieces that are within 25 dB of the loudest: pauses do not count.

    Close to ITU-T P.56's active level, which ratios of speech to noise refer to.
    """
    count = len(sound) // _FRAME
    if count == 0:
        return rms(sound)
    pieces = np.square(sound[: count * _FRAME].astype(np.float64)).reshape(count, _FRAME)
    powers = pieces.mean(axis=1)
    loud = powers >= powers.max() * 10.0 ** (-_TALKING_DB / 10.0)
    return math.sqrt(float(powers[loud].mean()))


def mixed(speech: Floats, noise: Floats, snr_db: float) -> Floats:
    """Speech (N,) with a noise (N,) at this ratio of :func:`talking_rms` to :func:`rms`.

    Silent speech or noise is left as it is: there is no ratio to bring about.
    """
    loudness, noisiness = talking_rms(speech), rms(noise)
    if loudness < _QUIET or noisiness < _QUIET:
        return speech
    share = loudness / noisiness * 10.0 ** (-snr_db / 20.0)
    return (speech + np.float32(share) * noise).astype(np.float32)


def coloured_noise(size: int, chance: np.random.Generator, slope_db: float = 0.0) -> Floats:
    """Noise (N,) whose power falls by so many dB per octave: 3 is pink, 6 brown."""
    points = 1 << max(1, size - 1).bit_length()
    spectrum = np.fft.rfft(chance.standard_normal(points))
    octaves = np.log2(np.maximum(np.arange(len(spectrum)), 1.0) / len(spectrum))
    noise = np.fft.irfft(spectrum * 10.0 ** (-slope_db * octaves / 20.0), points)[:size]
    return (noise / max(float(np.abs(noise).max()), 1e-9)).astype(np.float32)


def some_piece(sounds: Sequence[Floats], size: int, chance: np.random.Generator) -> Floats:
    """A piece (size,) of one of them from anywhere in it; a short one repeats."""
    sound = sounds[int(chance.integers(len(sounds)))]
    if not len(sound):
        return np.zeros(size, np.float32)
    first = int(chance.integers(max(1, len(sound) - size + 1)))
    found: Floats = np.resize(sound[first : first + size], size)
    return found


def through_microphone(sound: Floats, rate_hz: int, chance: np.random.Generator) -> Floats:
    """Some cheap microphone's colour: a low end, a high end, a tilt and a resonance."""
    points = 1 << max(1, len(sound) - 1).bit_length()
    hz = np.fft.rfftfreq(points, 1.0 / rate_hz)
    low_hz, high_hz = chance.uniform(20.0, 250.0), chance.uniform(3200.0, 0.5 * rate_hz)
    tilt_db, bump_db = chance.uniform(-3.0, 3.0), chance.uniform(-8.0, 8.0)
    bump_hz = 10.0 ** chance.uniform(2.3, math.log10(0.45 * rate_hz))
    octaves = np.log2(np.maximum(hz, 20.0) / 1000.0)
    bump = np.exp(-0.5 * np.square(np.log2(np.maximum(hz, 20.0) / bump_hz) / 0.5))
    gain_db = tilt_db * octaves / 2.0 + bump_db * bump
    gain_db -= 12.0 * np.maximum(0.0, np.log2(low_hz / np.maximum(hz, 1.0)))
    gain_db -= 18.0 * np.maximum(0.0, np.log2(np.maximum(hz, 1.0) / high_hz))
    spectrum = np.fft.rfft(sound, points) * 10.0 ** (gain_db / 20.0)
    return np.fft.irfft(spectrum, points)[: len(sound)].astype(np.float32)


def through_telephone(sound: Floats) -> Floats:
    """8 bit per sample on the mu-law of ITU-T G.711, full scale 1."""
    clipped = np.clip(sound, -1.0, 1.0)
    pressed = np.sign(clipped) * np.log1p(_MU * np.abs(clipped)) / math.log1p(_MU)
    steps = np.rint(pressed * 127.0) / 127.0
    return (np.sign(steps) * np.expm1(np.abs(steps) * math.log1p(_MU)) / _MU).astype(np.float32)


def without_silence(sound: Floats) -> Floats:
    """The 20 ms pieces (of 16 kHz) in which something can be heard: clips are often filled up."""
    pieces = sound[: len(sound) // _FRAME * _FRAME].reshape(-1, _FRAME)
    kept: Floats = pieces[np.abs(pieces).max(axis=1) > _SILENCE].reshape(-1)
    return kept


def at_speed(sound: Floats, speed: float) -> Floats:
    """Played faster (above 1) or slower, and higher or lower with it; no voice changes so."""
    count = int(len(sound) / speed)
    found = np.interp(np.arange(count) * speed, np.arange(len(sound)), sound)
    return np.asarray(found, np.float32)


def narrowed(sound: Floats, rate_hz: int, high_hz: float) -> Floats:
    """Without what lies above a frequency, as if it had been sampled at twice that."""
    points = 1 << max(1, len(sound) - 1).bit_length()
    spectrum = np.fft.rfft(sound, points)
    spectrum[np.fft.rfftfreq(points, 1.0 / rate_hz) > high_hz] = 0.0
    return np.fft.irfft(spectrum, points)[: len(sound)].astype(np.float32)


def at_level(sound: Floats, level_db: float) -> Floats:
    """With its peak at this level below full scale; louder than 0 dB it clips."""
    peak = float(np.abs(sound).max(initial=0.0))
    if peak < _QUIET:
        return sound
    louder: Floats = sound * np.float32(10.0 ** (level_db / 20.0) / peak)
    return np.clip(louder, -1.0, 1.0)
