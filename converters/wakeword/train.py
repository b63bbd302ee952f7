"""From a phrase's spelling to a network that wakes, and what it is worth."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from converters.sound.folders import read_some, sound_files
from converters.wakeword.augment import RATE_HZ, Surroundings, between_silence
from converters.wakeword.background import Heard, hear_folder
from converters.wakeword.corpus import Corpus
from converters.wakeword.evaluate import Rule, Trial, choose_rule, run_trial
from converters.wakeword.feature_store import FeatureStore, Halves
from converters.wakeword.learn import Lessons, Plan, Told, learn, score_stream
from converters.wakeword.network import FEATURES, STEP_S, Shape, WakeNetwork
from converters.wakeword.phonemes import Phones, plain, pronounced
from converters.wakeword.spell import Epoch, hear_clips, learn_to_spell, load_trunk, save_trunk
from converters.wakeword.task import SAMPLE_FRAMES
from converters.wakeword.trial import CONDITIONS, Hours, Spoken, spoken_under, stream_features
from converters.wakeword.workshop import Workshop, holds
from edge_sdk.audio.samples import Floats
from edge_sdk.errors import SourceError, UsageError

_LEARN: Final = (0, 1, 2, 3, 4, 5)
"""Parts of a folder's files, see :func:`part_of`: to learn from,"""
_CHOOSE: Final = (6, 7)
"""to choose the cutoff by,"""
_TEST: Final = (8, 9)
"""and to test with."""
_MOST_PHONES: Final = 40
_NAMED: Final = 5
"""Files that cannot be read are named, until there are too many."""

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
    budget_per_hour: float = 0.5
    samples: int = 24
    """Streams of 2.4 s that the int8 files are calibrated with, and as many to judge them."""
    hearings: int = 2
    """Rooms and noises in which each phrase is heard."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sounds:
    """What the user gives besides the phrase."""

    background: tuple[Path, ...] = ()
    """Folders without the phrase; a fifth of their files chooses the cutoff, a fifth tests it."""
    negatives: tuple[Path, ...] = ()
    """Folders without the phrase that only test; the background then teaches and chooses."""
    recordings: tuple[Path, ...] = ()
    """Folders of the phrase, to learn from besides the voices."""
    positives: tuple[Path, ...] = ()
    """Folders of the phrase that only test; without any, voices kept from training do."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that knows the phrase, how to listen, and what it answered."""

    network: WakeNetwork
    rule: Rule
    chosen_on: Trial
    tested_on: Trial
    samples: dict[str, list[Halves]]


def phones_of(phrase: str) -> Phones:
    """How the phrase is said.

    Raises:
        UsageError: ``usage.bad-phrase`` when it cannot be said, or is a speech.
        SourceError: ``source.no-voices``.
    """
    if strange := [sign for sign in phrase if _has_a_name_only(sign)]:
        raise UsageError(
            "bad-phrase",
            f"English voices do not pronounce {strange[0]!r}; they would read its name aloud.",
            'Write the phrase in Latin letters, as it sounds: --phrase "hey robin".',
        )
    (phones,) = pronounced([phrase])
    if not plain(phones):
        raise UsageError(
            "bad-phrase",
            f"Nothing of {phrase!r} can be pronounced.",
            'Write it as English words, as it sounds: --phrase "hey robin".',
        )
    if len(plain(phones)) > _MOST_PHONES:
        raise UsageError(
            "bad-phrase",
            f"{phrase!r} has {len(plain(phones))} sounds; the network hears two seconds.",
            "Choose two to four syllables.",
        )
    return phones


def _has_a_name_only(sign: str) -> bool:
    """Letters of other scripts and pictures: espeak-ng says "Chinese letter", "grinning face"."""
    foreign = sign.isalpha() and not unicodedata.name(sign, "").startswith("LATIN")
    return foreign or unicodedata.category(sign) == "So"


def name_of(phrase: str) -> str:
    """As a release may be called."""
    return re.sub(r"[^a-z0-9]+", "-", phrase.lower()).strip("-") or "wakeword"


class Training:
    """One phrase; each method is a step that takes minutes.

    Args:
        phrase: as it is written.
        workshop: where voices speak.
        sounds: the user's.
        settings: how much of everything.
        stage: told what is going on.
    """

    def __init__(
        self,
        phrase: str,
        workshop: Workshop,
        sounds: Sounds,
        settings: Settings,
        stage: Stage = lambda text: None,
    ) -> None:
        self.phrase, self.phones = phrase, phones_of(phrase)
        self._workshop, self._sounds, self._settings = workshop, sounds, settings
        self._stage = stage
        # What cannot be read is told before hours of work, not after them.
        self._skipped: list[str] = []
        self._taught = self._recorded(sounds.recordings)
        self._judging = self._recorded(sounds.positives)
        self._heard = self._hear_folders()
        self._around = Surroundings(
            [noise for part in self._heard["learn"] for noise in part.noises], settings.seed
        )

    @property
    def skipped(self) -> list[str]:
        """The user's files that cannot be read, and why; a few of many."""
        more = len(self._skipped) - _NAMED
        named = self._skipped[:_NAMED]
        return [*named, f"{more} more files."] if more > 0 else named

    def embedding(self, path: Path | None, keep: Path) -> Path:
        """The trunk's weights: those of a file, or learned now and kept.

        Raises:
            ConversionError: ``conversion.bad-embedding``.
        """
        if path is not None or keep.is_file():
            load_trunk(path or keep, self._settings.shape)
            return path or keep
        words = self._workshop.words(self._settings.words, self._count("speak words"))
        clips = [clip.phones for clip in words.clips]

        def hear(number: int) -> FeatureStore:
            self._stage(f"hear {len(words)} utterances in rooms and noise")
            return hear_clips(words.sounds(), self._around, self._settings.seed + number)

        def report(epoch: Epoch) -> None:
            self._stage(
                f"learn to spell: {epoch.number} of {epoch.epochs}, "
                f"{epoch.errors * 100:.0f} % of the sounds wrong"
            )

        speller = learn_to_spell(
            clips,
            hear,
            self._settings.shape,
            epochs=self._settings.spelling_epochs,
            seed=self._settings.seed,
            report=report,
        )
        save_trunk(speller, keep)
        return keep

    def run(self, trunk: Path) -> Trained:
        """Learn the phrase, choose a cutoff, test."""
        lessons, samples = self._lessons()
        torch.manual_seed(self._settings.seed)
        network = WakeNetwork(self._settings.shape)
        network.trunk.load_state_dict(load_trunk(trunk, self._settings.shape).trunk.state_dict())

        def told(now: Told) -> None:
            wrong = now.mistakes_per_hour
            self._stage(
                f"learn the phrase: step {now.step} of {now.steps}, loss {now.missed:.3f} missed, "
                f"{now.taken:.3f} taken"
                + (f", {wrong:.1f} mistakes per hour" if wrong is not None else "")
            )

        learn(network, lessons, replace(self._settings.plan, seed=self._settings.seed), told)
        self._stage("choose the cutoff")
        chosen_on, _ = self._trial(network, "choose")
        rule = choose_rule(chosen_on, self._settings.budget_per_hour)
        self._stage("test")
        tested_on, samples["evaluation"] = self._trial(network, "test")
        return Trained(network, rule, chosen_on, tested_on, samples)

    def _trial(self, network: WakeNetwork, use: str) -> tuple[Trial, list[Halves]]:
        """What it answers to sound of one use, and some of that sound."""
        testing = use == "test"
        noises = [noise for part in self._heard[use] for noise in part.noises]
        recordings = self._judging if testing else []
        if not recordings:
            recordings = list(self._judged().sounds())
        spoken = {c: spoken_under(c, recordings, noises, seed=3 + testing) for c in CONDITIONS}
        silent = [*(part.as_hours for part in self._heard[use]), self._talk(testing)]
        trial = run_trial(
            lambda stream: score_stream(network, stream), spoken, silent, self._near(testing)
        )
        everyone = [one for many in spoken.values() for one in many]
        return trial, self._samples(everyone, silent)

    def _judged(self) -> Corpus:
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
            self._around.heard(between_silence(talk.sound(i), 0.3, 0.4), chance)
            for i in range(int(second), len(talk), 2)
        ]
        return Hours("synthesised speech", (stream_features(sounds),))

    def _near(self, second: bool) -> list[Halves]:
        """One half of the near misses by those voices."""
        near = self._workshop.near_misses(
            self.phrase, self.phones, self._settings.judged, self._count("near"), held_out=True
        )
        chance = np.random.default_rng(13 + second)
        return [
            stream_features([self._around.heard(between_silence(near.sound(i), 0.6, 0.4), chance)])
            for i in range(int(second), len(near), 2)
        ]

    def _lessons(self) -> tuple[Lessons, dict[str, list[Halves]]]:
        settings, workshop = self._settings, self._workshop
        phrases = workshop.phrases(
            self.phrase, self.phones, settings.phrases, self._count("speak the phrase")
        )
        near = workshop.near_misses(
            self.phrase, self.phones, settings.near_misses, self._count("speak near misses")
        )
        words = workshop.words(settings.words, self._count("speak words"))
        lessons = Lessons(
            shares={"near": 0.22, "words": 0.16, "background": 0.14, "mistakes": 0.22}
        )
        self._stage("hear the phrase in rooms and noise")
        chance = np.random.default_rng(settings.seed + 5)
        said = [*phrases.sounds(), *self._taught]
        for _ in range(settings.hearings):
            for sound in said:
                self._add_phrase(lessons, sound, words, chance)
        lessons.others["near"] = hear_clips(near.sounds(), self._around, settings.seed + 1)
        others = [i for i, c in enumerate(words.clips) if not holds(c.phones, plain(self.phones))]
        others = others[: settings.words_heard]
        lessons.others["words"] = hear_clips(
            (words.sound(i) for i in others), self._around, settings.seed + 2
        )
        lessons.others["background"] = FeatureStore()
        for part in self._heard["learn"]:
            lessons.streams += part.streams
            _cut(part.streams, lessons.others["background"])
        lessons.streams.append(self._talk_stream(words, others))
        return lessons, {"calibration": self._calibration(lessons)}

    def _add_phrase(
        self, lessons: Lessons, sound: Floats, words: Corpus, chance: np.random.Generator
    ) -> None:
        """The phrase after silence, or after other words."""
        before = float(chance.uniform(0.1, 0.7))
        clip = between_silence(sound, before, float(chance.uniform(0.3, 0.45)))
        start, end = round(before * RATE_HZ), round(before * RATE_HZ) + len(sound)
        if chance.random() < 0.35:
            other = words.sound(int(chance.integers(len(words))))[-RATE_HZ:]
            clip = np.concatenate((other * float(chance.uniform(0.3, 1.2)), clip[start // 2 :]))
            start, end = start + len(other) - start // 2, end + len(other) - start // 2
        step = round(STEP_S * RATE_HZ)
        lessons.phrases.add(self._around.heard(clip.astype(np.float32), chance))
        lessons.ends.append((start // step, end // step))

    def _talk_stream(self, words: Corpus, chosen: Sequence[int]) -> Halves:
        """Half an hour of voices, one after another, to find mistakes in."""
        chance = np.random.default_rng(self._settings.seed + 9)
        picks = chance.permutation(len(chosen))[:900]
        return stream_features(
            [self._around.heard(words.sound(chosen[int(i)]), chance) for i in picks]
        )

    def _calibration(self, lessons: Lessons) -> list[Halves]:
        chance = np.random.default_rng(3)
        rows = [lessons.phrases.row(int(i)) for i in chance.integers(len(lessons.phrases), size=99)]
        for store in lessons.others.values():
            rows += [store.row(i) for i in range(min(40, len(store)))]
        return _even(rows, self._settings.samples, chance)

    def _samples(self, spoken: Sequence[Spoken], silent: Sequence[Hours]) -> list[Halves]:
        chance = np.random.default_rng(4)
        rows = [spoken[int(i)].features for i in chance.permutation(len(spoken))[:40]]
        rows += [stream[: 20 * SAMPLE_FRAMES] for kind in silent for stream in kind.streams[:2]]
        return _even(rows, self._settings.samples, chance)

    def _hear_folders(self) -> dict[str, list[Heard]]:
        """Background and negatives by what they are for."""
        test = () if self._sounds.negatives else _TEST
        parts = {"learn": (*_LEARN, *(() if test else _TEST)), "choose": _CHOOSE, "test": test}
        found = {
            use: [self._hear(place, wanted) for place in self._sounds.background]
            for use, wanted in parts.items()
        }
        found["test"] += [self._hear(place, range(10)) for place in self._sounds.negatives]
        every = [part for parts in found.values() for part in parts]
        for place in (*self._sounds.background, *self._sounds.negatives):
            _check_heard(place, [part for part in every if part.kind == place.name])
        self._skipped += [why for part in every for why in part.skipped]
        return {use: [part for part in heard if part.streams] for use, heard in found.items()}

    def _hear(self, place: Path, wanted: Collection[int]) -> Heard:
        return hear_folder(place, wanted, self._workshop.folder, self._stage)

    def _recorded(self, places: Sequence[Path]) -> list[Floats]:
        """Recordings of the phrase; a broken one among them is skipped."""
        if not places:
            return []
        found, skipped = read_some(sound_files(places), RATE_HZ)
        self._skipped += skipped
        return found

    def _count(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._stage(f"{what}: {done} of {total}")


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


def _cut(streams: Sequence[Halves], store: FeatureStore) -> None:
    """Pieces of three seconds."""
    for stream in streams:
        for first in range(0, len(stream) - 100, 300):
            store.add_features(stream[first : first + 300])


def _even(rows: Sequence[Halves], most: int, chance: np.random.Generator) -> list[Halves]:
    """Some of them, each with :data:`SAMPLE_FRAMES` frames of one stream."""
    joined = np.concatenate([rows[int(i)] for i in chance.permutation(len(rows))])
    count = min(most, len(joined) // SAMPLE_FRAMES)
    cut = joined[: count * SAMPLE_FRAMES].reshape(count, SAMPLE_FRAMES, FEATURES.bands)
    return list(cut)
