"""From a phrase's spelling to a network that wakes, and what it is worth."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from converters.wakeword.augment import RATE_HZ
from converters.wakeword.ears import BANDS, Halves
from converters.wakeword.evaluate import Rule, Trial, choose_rule
from converters.wakeword.feature_store import FeatureStore
from converters.wakeword.learn import Lessons, Told, learn, score_stream
from converters.wakeword.material import Material, Settings, Sounds, Stage
from converters.wakeword.network import FEATURES, STEP_S, WakeNetwork
from converters.wakeword.phonemes import Phones, plain, pronounced
from converters.wakeword.spell import Epoch, hear_clips, learn_to_spell, load_trunk, save_trunk
from converters.wakeword.task import SAMPLE_FRAMES
from converters.wakeword.workshop import Workshop
from edge_sdk.errors import UsageError

_MOST_PHONES: Final = 40


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that knows the phrase, how to listen, and what it answered."""

    network: WakeNetwork
    rule: Rule
    chosen_on: Trial
    tested_on: Trial
    samples: dict[str, list[Halves]]
    skipped: tuple[str, ...]


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
        phones = phones_of(phrase)
        self._settings, self._stage = settings, stage
        self._material = Material(phrase, phones, workshop, sounds, settings, BANDS, stage)

    def embedding(self, path: Path | None, keep: Path) -> Path:
        """The trunk's weights: those of a file, or learned now and kept.

        Raises:
            ConversionError: ``conversion.bad-embedding``.
        """
        if path is not None or keep.is_file():
            load_trunk(path or keep, self._settings.shape)
            return path or keep
        words = self._material.words()
        clips = [clip.phones for clip in words.clips]

        def hear(number: int) -> FeatureStore:
            self._stage(f"hear {len(words)} utterances in rooms and noise")
            return hear_clips(words.sounds(), self._material.around, self._settings.seed + number)

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

        def scorer(stream: Halves) -> np.ndarray:
            return score_stream(network, stream)

        self._stage("choose the cutoff")
        chosen_on = self._material.trial(scorer, "choose")
        rule = choose_rule(chosen_on, self._settings.budget_per_hour)
        self._stage("test")
        tested_on = self._material.trial(scorer, "test")
        samples["evaluation"] = self._samples(tested_on)
        return Trained(network, rule, chosen_on, tested_on, samples, self._material.skipped)

    def _lessons(self) -> tuple[Lessons, dict[str, list[Halves]]]:
        settings, material = self._settings, self._material
        said, near, words = material.phrases(), material.near_misses(), material.words()
        lessons = Lessons(
            shares={"near": 0.22, "words": 0.16, "background": 0.14, "mistakes": 0.22}
        )
        self._stage("hear the phrase in rooms and noise")
        chance, step = np.random.default_rng(settings.seed + 5), round(STEP_S * RATE_HZ)
        for _ in range(settings.hearings):
            for sound in said:
                placed = material.placed(sound, words, chance)
                lessons.phrases.add(placed.sound)
                lessons.ends.append((placed.start // step, placed.end // step))
        around = material.around
        lessons.others["near"] = hear_clips(near.sounds(), around, settings.seed + 1)
        others = material.others(words)
        lessons.others["words"] = hear_clips(
            (words.sound(i) for i in others), around, settings.seed + 2
        )
        lessons.others["background"] = FeatureStore()
        for part in material.heard["learn"]:
            lessons.streams += part.streams
            _cut(part.streams, lessons.others["background"])
        lessons.streams.append(material.talk_stream(words, others))
        return lessons, {"calibration": self._calibration(lessons)}

    def _calibration(self, lessons: Lessons) -> list[Halves]:
        chance = np.random.default_rng(3)
        rows = [lessons.phrases.row(int(i)) for i in chance.integers(len(lessons.phrases), size=99)]
        for store in lessons.others.values():
            rows += [store.row(i) for i in range(min(40, len(store)))]
        return _even(rows, self._settings.samples, chance)

    def _samples(self, tested: Trial) -> list[Halves]:
        chance = np.random.default_rng(4)
        spoken = [one.features for many in tested.spoken.values() for one, _ in many]
        rows = [spoken[int(i)] for i in chance.permutation(len(spoken))[:40]]
        streams = [s for part in self._material.heard["test"] for s in part.streams[:2]]
        rows += [stream[: 20 * SAMPLE_FRAMES] for stream in streams]
        return _even(rows, self._settings.samples, chance)


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
