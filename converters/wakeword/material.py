"""What a phrase is learned from and judged by: voices, folders, rooms, as some ear hears them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from converters.sound.folders import read_some, sound_files
from converters.sound.mixing import at_speed
from converters.wakeword.augment import (
    IN_ROOM,
    PLAIN,
    RATE_HZ,
    Ratios,
    Surroundings,
    amid_words,
    at_some_speed,
    between_silence,
)
from converters.wakeword.background import Heard, hear_folder
from converters.wakeword.corpus import Corpus
from converters.wakeword.ears import Ear, Halves
from converters.wakeword.evaluate import Trial, run_trial
from converters.wakeword.learn import Plan
from converters.wakeword.learn_head import HeadPlan
from converters.wakeword.network import Shape
from converters.wakeword.phonemes import Phones, plain
from converters.wakeword.trial import (
    CONDITIONS,
    Hours,
    Scorer,
    hours_of,
    speech_span,
    spoken_under,
)
from converters.wakeword.workshop import Workshop, holds
from edge_sdk.audio.samples import Floats
from edge_sdk.errors import SourceError

_LEARN: Final = (0, 1, 2, 3, 4, 5)
"""Parts of a folder's files, see :func:`part_of`: to learn from,"""
_CHOOSE: Final = (6, 7)
"""to choose the cutoff by,"""
_TEST: Final = (8, 9)
"""and to test with."""
_NAMED: Final = 5
"""Files that cannot be read are named, until there are too many."""
_MOST_OFTEN: Final = 8
_RECORDED: Final = 0.5
"""Of the synthesised phrases, so many: few recordings are heard again and again, elsewhere,"""
_RECORDED_OFTEN: Final = 20
"""each of them so many times at most."""
_SPEEDS: Final = (0.75, 1.3)
_PIECE: Final = 10 * RATE_HZ

Stage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to speak and how long to learn."""

    phrases: int = 1500
    near_misses: int = 2000
    words: int = 9000
    words_heard: int = 4000
    """Of the words, as what is not the phrase."""
    judged: int = 250
    """Phrases by voices that were kept from training."""
    talk: int = 600
    """Utterances by those voices to choose the cutoff by, and as many to test it."""
    spelling_epochs: int = 12
    plan: Plan = field(default_factory=Plan)
    shape: Shape = field(default_factory=Shape)
    head: HeadPlan = field(default_factory=HeadPlan)
    budget_per_hour: float = 0.5
    samples: int = 24
    """Streams of 2.4 s that the int8 files are calibrated with, and as many to judge them."""
    hearings: int = 2
    """Rooms and noises in which each phrase is heard."""
    ratios: Ratios = PLAIN
    """To the noise in lessons; an embedding that heard people knows silence, too."""
    loudest_db: float = -math.inf
    """Least ratio to recorded noise, which may be speech."""
    in_room: float = IN_ROOM
    """Share of the clips that are in a room."""
    again_s: float = 0.0
    """Sound of each background folder that is heard again elsewhere."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sounds:
    """What the user gives besides the phrase."""

    background: tuple[Path, ...] = ()
    """Folders without the phrase; a fifth of their files tests, a fifth or all of them choose."""
    noise: tuple[Path, ...] = ()
    """More of it, without talk: noise in lessons is theirs, or made."""
    negatives: tuple[Path, ...] = ()
    """Folders without the phrase that only test; the background then teaches and chooses."""
    recordings: tuple[Path, ...] = ()
    """Folders of the phrase, to learn from besides the voices."""
    positives: tuple[Path, ...] = ()
    """Folders of the phrase that only test; without any, voices kept from training do."""

    @property
    def all_background(self) -> tuple[Path, ...]:
        """That with talk and that without, each folder once."""
        return tuple(dict.fromkeys((*self.background, *self.noise)))


@dataclass(frozen=True, slots=True)
class Placed:
    """The phrase somewhere, perhaps among other words."""

    sound: Floats
    start: int
    """Its first sample,"""
    end: int
    """and the one after its last."""


class Material:
    """Everything that a phrase needs to be heard in; what is spoken or heard once is kept.

    Args:
        phrase: as it is written.
        phones: as it is said.
        workshop: where voices speak.
        sounds: the user's.
        settings: how much of everything.
        ear: how sound becomes numbers.
        stage: told what is going on.

    Raises:
        SourceError: a folder has no sound, or none that can be read.
    """

    def __init__(
        self,
        phrase: str,
        phones: Phones,
        workshop: Workshop,
        sounds: Sounds,
        settings: Settings,
        ear: Ear,
        stage: Stage,
    ) -> None:
        self.phrase, self.phones, self.ear = phrase, phones, ear
        self._workshop, self._sounds, self._settings = workshop, sounds, settings
        self._stage = stage
        # What cannot be read is told before hours of work, not after them.
        self._skipped: list[str] = []
        self._taught = [trimmed(one) for one in self._recorded(sounds.recordings)]
        self._judging = self._recorded(sounds.positives)
        self.heard = self._hear_folders()
        self.around = Surroundings(
            self._noises("learn"),
            settings.seed,
            settings.ratios,
            settings.in_room,
            settings.loudest_db,
        )

    @property
    def skipped(self) -> tuple[str, ...]:
        """Files that cannot be read, and why; a few of many."""
        more = len(self._skipped) - _NAMED
        named = tuple(self._skipped[:_NAMED])
        return (*named, f"{more} more files.") if more > 0 else named

    def phrases(self) -> list[Floats]:
        """The phrase by voices that teach, and the user's recordings, these again and again."""
        said = self._workshop.phrases(
            self.phrase, self.phones, self._settings.phrases, self._count("speak the phrase")
        )
        return beside(list(said.sounds()), self._taught)

    def near_misses(self) -> Corpus:
        """What sounds almost like it."""
        return self._workshop.near_misses(
            self.phrase, self.phones, self._settings.near_misses, self._count("speak near misses")
        )

    def words(self) -> Corpus:
        """Utterances of all kinds; some may hold the phrase, see :meth:`others`."""
        return self._workshop.words(self._settings.words, self._count("speak words"))

    def others(self, words: Corpus) -> list[int]:
        """Those of them that teach what is not the phrase."""
        chosen = [i for i, c in enumerate(words.clips) if not holds(c.phones, plain(self.phones))]
        return chosen[: self._settings.words_heard]

    def placed(self, sound: Floats, words: Corpus, chance: np.random.Generator) -> Placed:
        """The phrase (N,) after silence, or after other words; in some room and noise.

        Args:
            sound: the phrase alone.
            words: what may be said before.
            chance: of everything.
        """
        before = float(chance.uniform(0.1, 0.7))
        clip = between_silence(sound, before, float(chance.uniform(0.3, 0.45)))
        start, end = round(before * RATE_HZ), round(before * RATE_HZ) + len(sound)
        if chance.random() < 0.35:
            other = words.sound(int(chance.integers(len(words))))[-RATE_HZ:]
            clip = np.concatenate((other * float(chance.uniform(0.3, 1.2)), clip[start // 2 :]))
            start, end = start + len(other) - start // 2, end + len(other) - start // 2
        return Placed(self.around.heard(clip.astype(np.float32), chance), start, end)

    def amid(self, sound: Floats, words: Corpus, chance: np.random.Generator) -> Placed:
        """The phrase (N,) at some speed, words close before and after it, or none; somewhere."""

        def other() -> Floats:
            return words.sound(int(chance.integers(len(words))))

        sound = at_some_speed(sound, chance)
        clip, start = amid_words(sound, other, chance)
        return Placed(self.around.heard(clip, chance), start, start + len(sound))

    def talk_stream(self, words: Corpus, chosen: Sequence[int]) -> Halves:
        """Half an hour of voices, one after another, to find mistakes in."""
        chance = np.random.default_rng(self._settings.seed + 9)
        picks = chance.permutation(len(chosen))[:900]
        return self.ear.hear(
            [self.around.heard(words.sound(chosen[int(i)]), chance) for i in picks]
        )

    def elsewhere(self) -> dict[str, list[Halves]]:
        """The background again by folder, slower or faster, in other rooms, noise and levels.

        A folder with few sounds is heard more often, up to :attr:`Settings.again_s` and
        :data:`_MOST_OFTEN` times.
        """
        chance = np.random.default_rng(self._settings.seed + 15)
        found: dict[str, list[Halves]] = {}
        for part in self.heard["learn"]:
            once_s = sum(map(len, part.noises)) / RATE_HZ
            times = min(_MOST_OFTEN, round(self._settings.again_s / max(once_s, 1.0)))
            self._stage(f"hear {part.kind} again, {times} times elsewhere")
            copies = [self.ear.hear(self._moved(part.noises, chance)) for _ in range(times)]
            found.setdefault(part.kind, []).extend(copies)
        return found

    def _moved(self, sounds: Sequence[Floats], chance: np.random.Generator) -> Iterator[Floats]:
        for sound in sounds:
            other = at_speed(sound, float(chance.uniform(*_SPEEDS)))
            for first in range(0, len(other), _PIECE):
                yield self.around.heard(other[first : first + _PIECE], chance)

    def trial(self, scorer: Scorer, use: str) -> Trial:
        """What a network answers to sound of one use: ``choose`` or ``test``."""
        testing = use == "test"
        noises = [noise for kind in self._noises(use) for noise in kind]
        recordings = self._judging if testing else []
        if not recordings:
            recordings = list(self.judged().sounds())
        spoken = {
            c: spoken_under(c, recordings, noises, self.ear, seed=3 + testing) for c in CONDITIONS
        }
        silent = [
            *(hours_of(part.kind, part.streams, self.ear) for part in self.heard[use]),
            self._talk(testing),
        ]
        return run_trial(scorer, spoken, silent, self.ear.step_s, self._near(testing))

    def judged(self) -> Corpus:
        """The phrase by voices that are kept from teaching."""
        return self._workshop.phrases(
            self.phrase, self.phones, self._settings.judged, self._count("speak"), held_out=True
        )

    def _talk(self, second: bool) -> Hours:
        """One half of what voices say that were kept from training."""
        talk = self._workshop.talk(
            self.phrase, self.phones, 2 * self._settings.talk, self._count("talk")
        )
        chance = np.random.default_rng(11 + second)
        sounds = [
            self.around.heard(between_silence(talk.sound(i), 0.3, 0.4), chance)
            for i in range(int(second), len(talk), 2)
        ]
        return hours_of("synthesised speech", [self.ear.hear(sounds)], self.ear)

    def _near(self, second: bool) -> list[Halves]:
        """One half of the near misses by those voices."""
        near = self._workshop.near_misses(
            self.phrase, self.phones, self._settings.judged, self._count("near"), held_out=True
        )
        chance = np.random.default_rng(13 + second)
        return [
            self.ear.hear([self.around.heard(between_silence(near.sound(i), 0.6, 0.4), chance)])
            for i in range(int(second), len(near), 2)
        ]

    def _noises(self, use: str) -> list[Sequence[Floats]]:
        """By kind, of a use's folders without talk."""
        named = {place.name for place in self._sounds.noise}
        return [part.noises for part in self.heard[use] if part.kind in named]

    def _hear_folders(self) -> dict[str, list[Heard]]:
        """Background and negatives by what they are for."""
        background = self._sounds.all_background
        test = () if self._sounds.negatives else _TEST
        parts = {"learn": (*_LEARN, *(() if test else _TEST)), "choose": _CHOOSE, "test": test}
        found = {
            use: [self._hear(place, wanted) for place in background]
            for use, wanted in parts.items()
        }
        found["test"] += [self._hear(place, range(10)) for place in self._sounds.negatives]
        every = [part for parts in found.values() for part in parts]
        for place in (*background, *self._sounds.negatives):
            _check_heard(place, [part for part in every if part.kind == place.name])
        self._skipped += [why for part in every for why in part.skipped]
        return {use: [part for part in heard if part.streams] for use, heard in found.items()}

    def _hear(self, place: Path, wanted: Collection[int]) -> Heard:
        return hear_folder(place, wanted, self.ear, self._workshop.folder, self._stage)

    def _recorded(self, places: Sequence[Path]) -> list[Floats]:
        """Recordings of the phrase; a broken one among them is skipped."""
        if not places:
            return []
        found, skipped = read_some(sound_files(places), RATE_HZ)
        self._skipped += skipped
        return found

    def _count(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._stage(f"{what}: {done} of {total}")


def beside(said: Sequence[Floats], recorded: Sequence[Floats]) -> list[Floats]:
    """Synthesised phrases and the user's recordings, few of which count as many."""
    often = math.ceil(_RECORDED * len(said) / max(1, len(recorded)))
    return [*said, *list(recorded) * min(often, _RECORDED_OFTEN)]


def trimmed(recording: Floats) -> Floats:
    """The recording (N,) without the silence around it: where it ends, its lesson says yes."""
    first, last = speech_span(recording)
    return recording[first:last]


def _check_heard(place: Path, parts: Sequence[Heard]) -> None:
    """A folder of which nothing can be read was named in vain.

    Raises:
        SourceError: ``source.no-sounds``.
    """
    if not any(part.streams for part in parts):
        why = next((reason for part in parts for reason in part.skipped), "all of it is too short.")
        raise SourceError(
            "no-sounds",
            f"Nothing in {place} can be read: {why}",
            "Name a folder with whole sound files, or write them as WAV.",
        )
