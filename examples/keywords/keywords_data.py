"""Spoken digits: recordings from a folder, or words that espeak-ng speaks.

A folder of recordings holds WAV files named ``{digit}_{speaker}_{take}.wav``; set KEYWORDS_CLIPS to
it. Otherwise espeak-ng speaks each digit in many voices, rates and pitches.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_sdk.audio.condition import conditioned
from edge_sdk.audio.samples import Floats, decode_samples
from edge_sdk.audio.wavefile import WaveFile, read_wave

RATE_HZ = 16000
CLIP_S = 1.0
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NONE = "(none)"
"""Noise, silence, and what lies between words."""
LABELS = (*WORDS, NONE)
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")
VARIANTS = ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
SPOKEN = 60
"""Clips per word that espeak-ng speaks."""


class Clip(NamedTuple):
    """One word."""

    samples: Floats
    label: int
    held_out: bool
    """Not for training: another speaker, or every fifth where there is but one."""


@cache
def clips() -> tuple[Clip, ...]:
    """All clips, in a fixed order, each (N,) at 16 kHz."""
    folder = os.environ.get("KEYWORDS_CLIPS", "")
    found = _recorded(Path(folder)) if folder else _spoken()
    if not found:
        raise SystemExit(
            "No words to learn from: install espeak-ng (apt-get install espeak-ng), or set "
            "KEYWORDS_CLIPS to a folder of WAV files named {digit}_{speaker}_{take}.wav."
        )
    return tuple(found)


def _recorded(folder: Path) -> list[Clip]:
    """Every third speaker is held out."""
    names = [
        (path, match)
        for path in sorted(folder.glob("*.wav"))
        if (match := re.fullmatch(r"(\d)_(\w+)_(\d+)\.wav", path.name))
    ]
    speakers = sorted({match[2] for _, match in names})
    held = set(speakers[2::3])
    found = []
    for path, match in names:
        samples, rate_hz = read_wave(path)
        sound = conditioned(samples, rate_hz, RATE_HZ)
        found.append(Clip(sound, int(match[1]), match[2] in held))
    return found


def _spoken() -> list[Clip]:
    if shutil.which("espeak-ng") is None:
        return []
    found = []
    for label, word in enumerate(WORDS):
        picks = random.Random(word)
        for take in range(SPOKEN):
            voice = picks.choice(VOICES) + VARIANTS[take % len(VARIANTS)]
            rate, pitch = picks.randrange(120, 220), picks.randrange(25, 75)
            samples = speak(word, voice, rate, pitch)
            if len(samples):
                # Whole variants are held out, so that no voice is on both sides.
                found.append(Clip(samples, label, take % len(VARIANTS) in (4, 9)))
    return found


def speak(text: str, voice: str, words_per_minute: int, pitch: int) -> Floats:
    """What espeak-ng says, (N,) at 16 kHz; empty when it fails."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch)]
    done = subprocess.run(
        [*command, "--stdout", text], capture_output=True, timeout=30, check=False
    )
    if done.returncode != 0 or not done.stdout:
        return np.zeros(0, np.float32)
    wave = WaveFile(io.BytesIO(done.stdout), "espeak-ng")
    frames = decode_samples(wave.read(10**7), wave.form)
    loud = np.flatnonzero(np.abs(frames[:, 0]) > 0.01)
    if not len(loud):
        return np.zeros(0, np.float32)
    return conditioned(frames[loud[0] : loud[-1] + 1], wave.form.rate_hz, RATE_HZ)


def placed(clip: Floats, chance: np.random.Generator) -> Floats:
    """The word somewhere in a second of faint noise, louder or quieter, (16000,)."""
    size = round(CLIP_S * RATE_HZ)
    sound = _noise(size, -2, chance)
    # It ends in the last quarter, where the network has heard all of it.
    _lay(sound, _said_anew(clip, chance), size - int(chance.integers(0, size // 4)), chance)
    return sound


def nothing(chance: np.random.Generator, words: tuple[Clip, ...]) -> Floats:
    """A second without a word: noise, the beginning of one, or one that ended a while ago."""
    size = round(CLIP_S * RATE_HZ)
    kind = chance.random()
    if kind < 0.3:
        return _noise(size, -1, chance)
    word = _said_anew(words[int(chance.integers(len(words)))].samples, chance)
    sound = _noise(size, -2, chance)
    if kind < 0.8:
        _lay(sound, word[: int(len(word) * chance.uniform(0.1, 0.55))], size, chance)
    else:
        _lay(sound, word, int(size * chance.uniform(0.2, 0.6)), chance)
    return sound


def _noise(size: int, loudest: float, chance: np.random.Generator) -> Floats:
    level = 10 ** chance.uniform(-4.5, loudest)
    return (level * chance.standard_normal(size)).astype(np.float32)


def _said_anew(clip: Floats, chance: np.random.Generator) -> Floats:
    """The word a little faster and higher, or slower and lower: another speaker, nearly."""
    length = max(2, round(len(clip) * chance.uniform(0.85, 1.18)))
    places = np.linspace(0, len(clip) - 1, length)
    return np.interp(places, np.arange(len(clip)), clip).astype(np.float32)


def _lay(sound: Floats, word: Floats, end: int, chance: np.random.Generator) -> None:
    """Add a word that ends there."""
    word = word[-end:]
    level = 10 ** chance.uniform(-1.3, -0.1) / float(np.abs(word).max(initial=1e-6))
    sound[end - len(word) : end] += np.float32(level) * word
