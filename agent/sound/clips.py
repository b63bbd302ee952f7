"""Keeps the sound around the last words heard, as WAV files: what woke the device, and what for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.audio.detect import Hit
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.wavefile import wave_bytes
from edge_sdk.durable import Storage


@dataclass(frozen=True, slots=True)
class _Due:
    hit: Hit
    start: int
    end: int


class Clips:
    """A folder with a bounded number of clips.

    Args:
        folder: where; made if absent.
        keep: clips at most; the oldest goes.
        before_s: sound before the end of the word.
        after_s: sound after it.
        rate_hz: of the sound.
        recall: gives the sound between two positions of the stream.
        storage: writes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        before_s: float,
        after_s: float,
        rate_hz: int,
        recall: Callable[[int, int], Floats],
        storage: Storage,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._before, self._after = round(before_s * rate_hz), round(after_s * rate_hz)
        self._rate_hz = rate_hz
        self._recall = recall
        self._storage = storage
        self._due: list[_Due] = []
        self._number = 1 + max((_number(path) for path in self._clips()), default=0)

    def heard(self, hit: Hit, end: int) -> None:
        """A word ended at this position; its clip is written once the sound after it is there."""
        self._due.append(_Due(hit, max(0, end - self._before), end + self._after))

    def advance(self, position: int) -> list[Path]:
        """The stream has come this far; the clips that were written.

        Raises:
            StorageError: the disk is full or read-only.
        """
        ripe = [due for due in self._due if due.end <= position]
        self._due = [due for due in self._due if due.end > position]
        return [self._write(due) for due in ripe]

    def flush(self) -> list[Path]:
        """The end of the stream: what is due is written as far as there is sound."""
        ripe, self._due = self._due, []
        return [self._write(due) for due in ripe]

    def _write(self, due: _Due) -> Path:
        word = re.sub(r"[^A-Za-z0-9]+", "-", due.hit.label).strip("-") or "word"
        path = self._folder / f"{self._number:06d}-{word}-{round(due.hit.score * 100):02d}.wav"
        self._number += 1
        samples = self._recall(due.start, due.end)
        self._storage.write(path, wave_bytes(samples, self._rate_hz))
        clips = sorted(self._clips(), key=_number)
        for old in clips[: max(0, len(clips) - self._keep)]:
            self._storage.remove(old)
        return path

    def _clips(self) -> list[Path]:
        return [path for path in self._folder.glob("*.wav") if _number(path)]


def _number(path: Path) -> int:
    head = path.name.partition("-")[0]
    return int(head) if head.isdecimal() and len(head) == 6 else 0
