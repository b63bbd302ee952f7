"""What the network learns from: speech that synthesisers say, mixed with noise.

Noise is made up, and read from a folder of recordings where ENHANCE_NOISE names one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from enhance_mix import Pool, mixed
from enhance_speech import RATE_HZ, speech

from edge_sdk.audio.condition import conditioned
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.spectrum import Analysis, Complexes, cut
from edge_sdk.contracts.audio import EnhanceSpec

SPEC = EnhanceSpec()


class Batch(NamedTuple):
    """Noisy speech and what is wanted of it."""

    features: Floats
    """(N, 3, T, bands)."""
    noisy: Complexes
    """(N, T, bins)."""
    clean: Complexes


def pools(utterances: int, seed: int) -> tuple[Pool, Pool | None]:
    """Speech, and the recordings of noise if there are any."""
    return Pool(list(speech(utterances, seed))), recorded_noise(os.environ.get("ENHANCE_NOISE", ""))


def recorded_noise(pattern: str) -> Pool | None:
    """Recordings that match a glob pattern such as ``noise/[12]-*.ogg``, without their silence."""
    found = []
    for path in sorted(Path().glob(pattern)) if pattern else ():
        found.append(without_silence(read_sound(path)))
    return Pool(found) if found else None


def read_sound(path: Path) -> Floats:
    """(N,) at 16 kHz; needs the audio extra."""
    import soundfile

    frames, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return conditioned(frames, rate_hz, RATE_HZ)


def without_silence(sound: Floats) -> Floats:
    """The pieces of 20 ms that are no digital silence."""
    pieces = sound[: len(sound) // 320 * 320].reshape(-1, 320)
    return pieces[np.abs(pieces).max(axis=1) > 1e-4].reshape(-1)


def features_of(noisy: Floats) -> Floats:
    """(3, T, bands) of a recording (N,)."""
    analysis = Analysis(SPEC)
    return analysis.features(analysis.spectra(cut(noisy, SPEC)))


def batch(
    speech: Pool, noise: Pool | None, chance: np.random.Generator, count: int, size: int
) -> Batch:
    """So many pieces of (size,)."""
    pairs = [mixed(speech, noise, chance, size) for _ in range(count)]
    analysis = Analysis(SPEC)
    noisy = analysis.spectra(cut(np.stack([pair[0] for pair in pairs]), SPEC))
    clean = analysis.spectra(cut(np.stack([pair[1] for pair in pairs]), SPEC))
    return Batch(analysis.features(noisy), noisy, clean)
