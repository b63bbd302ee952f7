"""Sound without the phrase from folders that a user names, split by file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from converters.sound.folders import read_heard, sound_files
from converters.wakeword.augment import RATE_HZ
from converters.wakeword.ears import Ear, Halves
from edge_sdk.audio.samples import Floats
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import SourceError

_BLOCK_S: Final = 600.0
"""Files are joined to streams of this length."""
_NOISE_S: Final = 1800.0
_PARTS: Final = 10
_FULL: Final = 32767.0


@dataclass(frozen=True, slots=True)
class Heard:
    """One folder's share of a split."""

    kind: str
    streams: tuple[Halves, ...]
    noises: tuple[Floats, ...]
    """Up to half an hour of its sounds as they are."""
    skipped: tuple[str, ...] = ()
    """Files that cannot be read, and why."""


def hear_folder(
    place: Path,
    wanted: Collection[int],
    ear: Ear,
    keep: Path,
    told: Callable[[str], None] = lambda text: None,
) -> Heard:
    """Features of a folder's sounds, one after another; a broken file among them is skipped.

    Args:
        wanted: parts of its files, see :func:`part_of`.
        ear: who hears them.
        keep: folder for the result, which is found there the next time.
        told: how far it is.

    Raises:
        SourceError: those of :mod:`converters.sound.folders`.
    """
    paths = [path for path in sound_files([place]) if part_of(path) in wanted]
    kept = keep / f"heard-{_digest(paths, ear)}.npz"
    found = _kept(kept, place.name)
    if found is None:
        found = _heard(place.name, paths, ear, told)
        _keep(kept, found, ear)
    return found


def _heard(kind: str, paths: Sequence[Path], ear: Ear, told: Callable[[str], None]) -> Heard:
    streams: list[Halves] = []
    noises: list[Floats] = []
    block: list[Floats] = []
    skipped: list[str] = []
    for number, path in enumerate(paths):
        try:
            sound = read_heard(path, RATE_HZ)
        except SourceError as error:
            if error.slug == "extra-missing":
                raise
            skipped.append(error.cause)
            sound = np.zeros(0, np.float32)
        block.append(sound)
        if sum(map(len, noises)) < _NOISE_S * RATE_HZ and number % 2 == 0 and len(sound):
            noises.append(sound)
        if sum(map(len, block)) > _BLOCK_S * RATE_HZ or path == paths[-1]:
            rows = ear.hear(block)
            streams += [rows] if len(rows) else []
            block = []
            told(f"hear {kind}: {number + 1} of {len(paths)}")
    return Heard(kind, tuple(streams), tuple(noises), tuple(skipped))


def _digest(paths: Sequence[Path], ear: Ear) -> str:
    facts = ((str(path.absolute()), path.stat()) for path in paths)
    text = ear.name + "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _keep(path: Path, heard: Heard, ear: Ear) -> None:
    buffer = BytesIO()
    noise = np.concatenate([np.zeros(0, np.float32), *heard.noises])
    np.savez(
        buffer,
        streams=np.concatenate([np.zeros((0, ear.width), np.float16), *heard.streams]),
        stream_ends=np.cumsum([len(stream) for stream in heard.streams], dtype=np.int64),
        noise=np.rint(np.clip(noise, -1, 1) * _FULL).astype(np.int16),
        noise_ends=np.cumsum([len(one) for one in heard.noises], dtype=np.int64),
        skipped=np.array(heard.skipped, dtype=str),
    )
    DiskStorage().write(path, buffer.getvalue())


def _kept(path: Path, kind: str) -> Heard | None:
    try:
        with np.load(path) as file:
            parts = np.split(file["streams"], file["stream_ends"])[:-1]
            streams = [part for part in parts if len(part)]
            whole = (file["noise"] / np.float32(_FULL)).astype(np.float32)
            noises = np.split(whole, file["noise_ends"])[:-1]
            return Heard(kind, tuple(streams), tuple(noises), tuple(map(str, file["skipped"])))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def part_of(path: Path) -> int:
    """0 to 9, by name: stays the same when files are added."""
    return hashlib.sha256(path.name.encode()).digest()[0] % _PARTS
