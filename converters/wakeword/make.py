"""A wake word as a folder: everything from the spelling to the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from converters.foreign.embedding import SpeechEmbedding
from converters.wakeword.embedded import TrainedHead, train_head
from converters.wakeword.head_network import write_head
from converters.wakeword.learn import Plan
from converters.wakeword.learn_head import HeadPlan
from converters.wakeword.material import Settings, Sounds
from converters.wakeword.neighbours import chance_accepts_per_hour
from converters.wakeword.network import Step
from converters.wakeword.phonemes import Phones
from converters.wakeword.report import Evaluation, make_evaluation, write_evaluation
from converters.wakeword.speech_task import SpeechAbout, SpeechTask
from converters.wakeword.task import About, WakeTask, write_task
from converters.wakeword.train import Trained, Training, name_of, phones_of
from converters.wakeword.voices import find_voices
from converters.wakeword.words import vocabulary
from converters.wakeword.workshop import Workshop
from edge_sdk.errors import StorageError

__all__ = ["Made", "Wishes", "make", "name_of"]

TOO_SHORT_PER_HOUR: Final = 0.1
_WORK: Final = "work"
_EMBEDDING: Final = "embedding.pt"
QUICK: Final = Settings(
    phrases=150,
    near_misses=200,
    words=1200,
    judged=50,
    talk=60,
    spelling_epochs=6,
    plan=Plan(steps=150, search_every=75),
    hearings=2,
    head=HeadPlan(networks=1, steps=300),
)
"""To see it work; the result is not worth much."""
ON_EMBEDDING: Final = Settings(
    phrases=6000,
    words_heard=9000,
    hearings=2,
    ratios=((0.45, -3.0, 15.0), (0.4, 15.0, 35.0), (0.15, 35.0, 55.0)),
    loudest_db=5.0,
    in_room=0.5,
    again_s=2400.0,
)
"""A head learns in minutes: what it learns from may be more."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asks for."""

    sounds: Sounds = field(default_factory=Sounds)
    piper: tuple[Path, ...] = ()
    text: Path | None = None
    embedding: Path | None = None
    """A trunk trained before, or the folder of a published embedding; None to train a trunk."""
    work: Path | None = None
    """Where speech and embedding are kept; a folder beside the result by default."""
    budget_per_hour: float = 0.5
    quick: bool = False
    seed: int = 0
    settings: Settings | None = None
    """Instead of the usual amounts."""


@dataclass(frozen=True, slots=True)
class Made:
    """What :func:`make` wrote."""

    name: str
    evaluation: Evaluation
    embedding: Path
    head: Path | None = None
    """What openWakeWord loads, where the phrase was learned on a published embedding."""


def make(
    phrase: str,
    folder: Path,
    wishes: Wishes,
    stage: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Made:
    """Train a wake word and write its folder.

    Args:
        phrase: as it is written.
        folder: for task, weights and report.
        wishes: everything else.
        stage: told each step as it begins.
        warn: told what makes the phrase or the claim doubtful.

    Raises:
        UsageError: ``usage.bad-phrase``.
        SourceError: no voices, no sound in a folder; see docs/errors/source.md.
        ConversionError: ``conversion.bad-embedding``, or ``conversion.bad-wakeword`` for a folder.
        StorageError: the folder cannot be written.
    """
    stage("find voices")
    phones = phones_of(phrase)
    _make_folder(folder)
    voices = find_voices(wishes.piper)
    words = vocabulary(wishes.text)
    by_chance = chance_accepts_per_hour(phones, words)
    remarks = _remarks(phrase, phones, by_chance, wishes.sounds)
    for remark in remarks:
        warn(remark)
    work = wishes.work or folder / _WORK
    workshop = Workshop(work, voices, words, seed=wishes.seed)
    learned, embedding = _learn(phrase, phones, workshop, wishes, stage)
    for why in learned.skipped:
        warn(f"Skipped: {why}")
    evaluation = make_evaluation(
        phrase=phrase,
        sounds="".join(phones),
        rule=learned.rule,
        budget_per_hour=wishes.budget_per_hour,
        chosen_on=learned.chosen_on,
        tested_on=learned.tested_on,
        positives=_positives(wishes.sounds),
        by_chance=by_chance,
        voices=len(voices),
        remarks=[*remarks, *learned.skipped],
    )
    head = _write(folder, phrase, learned, wishes)
    write_evaluation(folder, evaluation)
    return Made(name_of(phrase), evaluation, embedding, head)


def _make_folder(folder: Path) -> None:
    """Before hours of work whose result could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "write-failed",
            f"Cannot write to {folder}: {error.strerror or error}.",
            "Name another folder with --out.",
        ) from error


def _learn(
    phrase: str, phones: Phones, workshop: Workshop, wishes: Wishes, stage: Callable[[str], None]
) -> tuple[Trained | TrainedHead, Path]:
    """What knows the phrase, and the embedding that it stands on."""
    settings, given = _settings(wishes), wishes.embedding
    if given is not None and given.is_dir():
        embedding = SpeechEmbedding(given)
        sounds = wishes.sounds
        return train_head(phrase, phones, embedding, workshop, sounds, settings, stage), given
    training = Training(phrase, workshop, wishes.sounds, settings, stage)
    trunk = training.embedding(given, workshop.folder / _EMBEDDING)
    return training.run(trunk), trunk


def _write(
    folder: Path, phrase: str, learned: Trained | TrainedHead, wishes: Wishes
) -> Path | None:
    """The task, and of a head the file that other programs take, which is returned."""
    name = name_of(phrase)
    if isinstance(learned, TrainedHead):
        head, width = folder / f"{name}.onnx", learned.network.second.in_features
        write_head(learned.network, head, phrase, learned.rule)
        speech = SpeechAbout(name, phrase, learned.rule, learned.layers, width)
        write_task(folder, SpeechTask, speech, learned.speech, learned.samples)
        return head
    shape = _settings(wishes).shape
    about = About(name, phrase, learned.rule, shape.channels, shape.trunk, shape.head)
    write_task(folder, WakeTask, about, Step(learned.network), learned.samples)
    return None


def _settings(wishes: Wishes) -> Settings:
    published = wishes.embedding is not None and wishes.embedding.is_dir()
    usual = ON_EMBEDDING if published else Settings()
    usual = wishes.settings or (QUICK if wishes.quick else usual)
    return replace(usual, budget_per_hour=wishes.budget_per_hour, seed=wishes.seed)


def _remarks(phrase: str, phones: Phones, by_chance: float, sounds: Sounds) -> list[str]:
    found = []
    if by_chance > TOO_SHORT_PER_HOUR:
        found.append(
            f"{phrase!r} is short: an hour of talk holds these sounds, or those with one taken for "
            f"another, about {by_chance:.2g} times, and each may be a false accept. Two words, "
            "or three syllables, are safer."
        )
    if not sounds.all_background and not sounds.negatives:
        found.append(
            "No --background was named: false accepts were counted in synthesised speech only, "
            "which says little about a living room."
        )
    if not sounds.noise:
        found.append(
            "No --noise was named: the phrase was learned and judged in noise that is made; that "
            "of a home, without talk, is better."
        )
    if not sounds.positives:
        found.append(
            "No --positives were named: recall is that of synthesised voices; people are harder."
        )
    return found


def _positives(sounds: Sounds) -> str:
    if sounds.positives:
        return "recordings in " + ", ".join(place.name for place in sounds.positives)
    return "synthesised by voices that were kept from training"
