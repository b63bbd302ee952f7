"""Real speech with real noise: spoken digits in a row, environmental sound at a known ratio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.sound.folders import read_sound
from converters.sound.mixing import mixed, narrowed, talking_rms, without_silence
from edge_sdk.audio.samples import Floats

RATE_HZ = 16000
BAND_HZ = 4000.0
"""The digits were recorded at 8 kHz: above is nothing but noise, which would be too easy."""
SNRS_DB = (0.0, 5.0, 10.0, 15.0)
DIGITS = 9
TALKING = 0.06
"""Root mean square of the speech."""


@dataclass(frozen=True)
class Utterance:
    """Digits in noise."""

    clean: Floats
    noisy: Floats
    speaker: str
    snr_db: float


def speakers(folder: Path) -> list[str]:
    """Whose digits there are."""
    return sorted({path.stem.split("_")[1] for path in folder.glob("*.wav")})


def utterances(digits: Path, noise: Path, fold: str, count: int, seed: int = 0) -> list[Utterance]:
    """So many, speakers and ratios in turn.

    Args:
        digits: folder of ``{digit}_{speaker}_{take}.wav``.
        noise: folder of ESC-10, whose names begin with the fold.
        fold: of the noise that was held out.
        count: utterances.
        seed: of the choice.
    """
    chance = np.random.default_rng(seed)
    names = speakers(digits)
    noises = sorted(path for path in noise.iterdir() if path.name.startswith(f"{fold}-"))
    if not names or not noises:
        raise SystemExit(f"There are no digits in {digits}, or no noise of fold {fold} in {noise}.")
    order = chance.permutation(len(noises))
    found = []
    for at in range(count):
        name = names[at % len(names)]
        snr_db = SNRS_DB[at // len(names) % len(SNRS_DB)]
        clean = _spoken(digits, name, chance)
        found.append(_noisy(clean, noises[order[at % len(noises)]], name, snr_db, chance))
    return found


def _spoken(folder: Path, name: str, chance: np.random.Generator) -> Floats:
    paths = sorted(folder.glob(f"*_{name}_*.wav"))
    parts = [np.zeros(RATE_HZ // 2, np.float32)]
    for index in chance.permutation(len(paths))[:DIGITS]:
        digit = read_sound(paths[index], RATE_HZ)
        gap = np.zeros(int(chance.uniform(0.05, 0.3) * RATE_HZ), np.float32)
        parts += [digit * np.float32(TALKING / talking_rms(digit)), gap]
    return np.concatenate(parts)


def _noisy(
    clean: Floats, path: Path, name: str, snr_db: float, chance: np.random.Generator
) -> Utterance:
    sound = _awake(narrowed(read_sound(path, RATE_HZ), RATE_HZ, BAND_HZ))
    sound = np.roll(np.resize(sound, max(len(sound), len(clean))), int(chance.integers(len(sound))))
    both = mixed(clean, sound[: len(clean)], snr_db)
    scale = np.float32(min(1.0, 0.99 / float(np.abs(both).max())))
    return Utterance(clean * scale, both * scale, name, snr_db)


def _awake(sound: Floats) -> Floats:
    """Without the digital silence that short clips of this set are filled up with."""
    kept = without_silence(sound)
    return kept if len(kept) >= RATE_HZ // 10 else sound
