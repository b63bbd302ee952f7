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
    noise_level = 10 ** chance.uniform(-4.5, -2)
    sound = (noise_level * chance.standard_normal(size)).astype(np.float32)
    word = clip[:size]
    # Its end lies in the last fifth, where the network has heard all of it.
    end = size - int(chance.integers(0, size // 5))
    start = max(0, end - len(word))
    peak = float(np.abs(word).max(initial=1e-6))
    level = 10 ** chance.uniform(-1.3, -0.1) / peak
    sound[start : start + len(word)] += np.float32(level) * word
    return sound


def nothing(chance: np.random.Generator, words: tuple[Clip, ...]) -> Floats:
    """A second without a word: noise, or no more than the beginning of one."""
    size = round(CLIP_S * RATE_HZ)
    sound = (10 ** chance.uniform(-4.5, -1) * chance.standard_normal(size)).astype(np.float32)
    if chance.random() < 0.5:
        word = words[int(chance.integers(len(words)))].samples
        part = word[: len(word) // 4]
        peak = float(np.abs(word).max(initial=1e-6))
        sound[size - len(part) :] += part * np.float32(10 ** chance.uniform(-1.3, -0.1) / peak)
    return sound
