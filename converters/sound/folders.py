"""Folders of recordings that a user names: every sound file in them, as a model hears it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edge_sdk.audio.condition import conditioned
from edge_sdk.audio.levels import LevelLimits, measure_levels
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.wavefile import read_wave
from edge_sdk.errors import SourceError

SUFFIXES: Final = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
MOST_FILES: Final = 200_000


def sound_files(places: Sequence[Path]) -> tuple[Path, ...]:
    """All sound files in these folders and below, in a fixed order; files may be named, too.

    Raises:
        SourceError: ``source.no-sounds`` where a place has none.
    """
    found: list[Path] = []
    for place in places:
        below = [place] if place.is_file() else sorted(place.rglob("*"))[:MOST_FILES]
        sounds = [path for path in below if path.suffix.lower() in SUFFIXES and path.is_file()]
        if not sounds:
            raise SourceError(
                "no-sounds",
                f"{place} " + ("holds no sound file." if place.exists() else "does not exist."),
                f"Name a folder with sound files ({', '.join(SUFFIXES)}).",
            )
        found += sounds
    return tuple(found)


def read_sound(path: Path, rate_hz: int) -> Floats:
    """A whole file as one channel at this rate, (N,) float32.

    Raises:
        SourceError: ``source.missing-file``, ``source.bad-wave``, ``source.bad-rate``, or
            ``source.extra-missing`` where it is no WAV file and soundfile is not installed.
    """
    frames, found_hz = read_wave(path) if path.suffix.lower() == ".wav" else _decoded(path)
    return conditioned(frames, found_hz, rate_hz)


def read_heard(path: Path, rate_hz: int) -> Floats:
    """:func:`read_sound` of what holds some: hours of digital silence prove nothing.

    Raises:
        SourceError: as :func:`read_sound`; ``source.bad-wave`` for silence.
    """
    sound = read_sound(path, rate_hz)
    if not len(sound) or measure_levels(sound).rms_db < LevelLimits().silent_db:
        raise SourceError(
            "bad-wave", f"{path} holds silence only.", "Record it again, or remove it."
        )
    return sound


def read_sounds(paths: Sequence[Path], rate_hz: int) -> Iterator[Floats]:
    """:func:`read_sound` of each."""
    return (read_sound(path, rate_hz) for path in paths)


def read_some(paths: Sequence[Path], rate_hz: int) -> tuple[list[Floats], list[str]]:
    """:func:`read_heard` of each that can be read, and why the others cannot.

    Raises:
        SourceError: that of the last one when none can be read; ``source.extra-missing`` at once.
    """
    found: list[Floats] = []
    skipped: list[str] = []
    for path in paths:
        try:
            found.append(read_heard(path, rate_hz))
        except SourceError as error:
            if error.slug == "extra-missing" or (path == paths[-1] and not found):
                raise
            skipped.append(error.cause)
    return found, skipped


def hours(sounds: Sequence[Floats], rate_hz: int) -> float:
    """How long they last together."""
    return sum(map(len, sounds)) / rate_hz / 3600.0


def _decoded(path: Path) -> tuple[Floats, int]:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise SourceError(
            "extra-missing",
            f"{path.name} is no WAV file, and reading others needs soundfile, which cannot be "
            f"imported: {error}.",
            "pip install 'edge-sdk[audio]'",
        ) from error
    try:
        frames, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise SourceError(
            "bad-wave",
            f"{path} cannot be decoded: {error}.",
            "Write it as WAV, e.g. with: ffmpeg -i FILE -c:a pcm_s16le out.wav",
        ) from error
    return np.asarray(frames, np.float32), int(rate_hz)
