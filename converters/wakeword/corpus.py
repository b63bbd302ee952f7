"""Thousands of spoken clips in one folder: the sound in one file, what was said in another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from converters.wakeword.phonemes import Phones
from converters.wakeword.voices import Manner, Voice, say, some_manner, some_voice
from converters.wakeword.words import Saying
from edge_sdk.audio.samples import Floats
from edge_sdk.errors import SourceError

INDEX: Final = "clips.json"
_SOUND: Final = "sound.i16"
_FULL: Final = 32767.0
_PEAK: Final = 0.7
_SHORTEST: Final = 1600
"""Samples, a tenth of a second: less is no utterance but a click."""
_LONGEST: Final = 16000 * 12
_MOST_FAILED: Final = 0.2
_BATCH: Final = 64

Progress = Callable[[int, int], None]


class ClipInfo(msgspec.Struct, frozen=True):
    """One clip of a corpus."""

    voice: str
    phones: tuple[str, ...]
    samples: int
    kind: str = ""
    """What it is for."""


class Corpus:
    """Clips that were spoken; sounds stay on disk until they are asked for.

    Raises:
        SourceError: ``source.bad-corpus``.
    """

    def __init__(self, folder: Path) -> None:
        try:
            data = (folder / INDEX).read_bytes()
            self.clips = msgspec.json.decode(data, type=list[ClipInfo])
            self._sound = np.memmap(folder / _SOUND, "<i2", "r")
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise _bad(folder, str(error)) from error
        self._ends = np.cumsum([clip.samples for clip in self.clips])
        if len(self._ends) and self._ends[-1] != len(self._sound):
            raise _bad(folder, "its sound is cut off")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def hours(self) -> float:
        """Of speech."""
        return len(self._sound) / 16000 / 3600

    def sound(self, index: int) -> Floats:
        """(N,) float32 at 16 kHz."""
        end = int(self._ends[index])
        found = self._sound[end - self.clips[index].samples : end]
        return (found / np.float32(_FULL)).astype(np.float32)

    def sounds(self) -> Iterator[Floats]:
        """All of them, in order."""
        return (self.sound(index) for index in range(len(self)))


def speak_corpus(
    sayings: Iterable[Saying],
    voices: Sequence[Voice],
    folder: Path,
    *,
    count: int,
    seed: int,
    kind: str = "",
    workers: int = 2,
    progress: Progress = lambda done, total: None,
) -> Corpus:
    """Speak each saying by some voice in some manner, and keep the result.

    Args:
        sayings: at least ``count`` of them.
        folder: to create; its index is written last, so an interrupted run leaves no corpus.
        count: clips to speak.
        workers: commands at a time.
        progress: told how many of how many are done.

    Raises:
        SourceError: ``source.voice-failed`` when more than a fifth of the clips fail.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    jobs = ((saying, some_voice(voices, chance), some_manner(chance)) for saying in sayings)
    clips: list[ClipInfo] = []
    failures: list[SourceError] = []
    part = folder / (_SOUND + ".part")
    with part.open("wb") as file, ThreadPoolExecutor(workers) as pool:
        done = 0
        while batch := list(islice(jobs, min(_BATCH, count - done))):
            for job, found in zip(batch, pool.map(_spoken, batch), strict=True):
                if isinstance(found, SourceError):
                    failures.append(found)
                else:
                    clips.append(_kept(file, found, job, kind))
            done += len(batch)
            if len(failures) > max(10, _MOST_FAILED * done):
                raise failures[-1]
            progress(done, count)
    part.replace(folder / _SOUND)
    (folder / INDEX).write_bytes(msgspec.json.encode(clips))
    return Corpus(folder)


def _spoken(job: tuple[Saying, Voice, Manner]) -> Floats | SourceError:
    saying, voice, manner = job
    words: str | Phones = saying.words
    try:
        found = say(words, voice, manner)
    except SourceError as error:
        return error
    if not _SHORTEST <= len(found) <= _LONGEST:
        return SourceError(
            "voice-failed",
            f"The voice {voice.title} said {words!r} in {len(found) / 16000:.2f} s.",
            "Try the command by hand, and install or update it.",
        )
    return found


def _kept(file: BinaryIO, sound: Floats, job: tuple[Saying, Voice, Manner], kind: str) -> ClipInfo:
    saying, voice, _ = job
    scaled = sound * (_PEAK * _FULL / max(float(np.abs(sound).max()), 1e-6))
    file.write(np.rint(scaled).astype("<i2").tobytes())
    return ClipInfo(voice.title, saying.phones, len(sound), kind)


def _bad(folder: Path, what: str) -> SourceError:
    return SourceError(
        "bad-corpus",
        f"{folder} is no folder of spoken clips: {what}.",
        "Remove the folder; the command speaks the clips again.",
    )
