"""A phrase learned on top of a published embedding of speech, which stays as it is.

What the embedding heard of thousands of people need not be learned from synthetic voices: a head of
a few layers does, in minutes, see docs/adr/0028-a-published-embedding-may-be-brought.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from converters.foreign.chain_network import Layer
from converters.foreign.embedding import SpeechEmbedding
from converters.sound.mixing import some_piece
from converters.wakeword.augment import RATE_HZ, between_silence
from converters.wakeword.crossfit import FEWEST, answers_of_strangers
from converters.wakeword.ears import Halves
from converters.wakeword.evaluate import Rule, Trial, choose_rule
from converters.wakeword.head_network import HeadNetwork, score_embeddings
from converters.wakeword.learn import Told
from converters.wakeword.learn_head import HeadLessons, HeadPlan, learn_head
from converters.wakeword.material import Material, Settings, Sounds, Stage
from converters.wakeword.phonemes import Phones
from converters.wakeword.speech_network import SpeechNetwork, speech_network
from converters.wakeword.speech_task import STREAM_S, some_streams
from converters.wakeword.trial import hours_of
from converters.wakeword.workshop import Workshop
from edge_sdk.audio.samples import Floats

_LEAD_S: Final = 0.8
"""Before other words, so that the windows of their ends are full."""
_STREAM_CLIPS: Final = 200


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head that knows the phrase, how to listen, and what it answered."""

    network: HeadNetwork
    rule: Rule
    chosen_on: Trial
    tested_on: Trial
    speech: SpeechNetwork
    """The head on its embedding, as devices run both."""
    layers: tuple[Layer, ...]
    """Of the embedding."""
    samples: dict[str, Sequence[Floats]]
    """Frames to calibrate with and to be judged by."""
    skipped: tuple[str, ...]


def train_head(
    phrase: str,
    phones: Phones,
    embedding: SpeechEmbedding,
    workshop: Workshop,
    sounds: Sounds,
    settings: Settings,
    stage: Stage = lambda text: None,
) -> TrainedHead:
    """Speak, hear, learn, choose a cutoff, test.

    Args:
        phrase: as it is written.
        phones: as it is said.
        embedding: the user's.
        workshop: where voices speak.
        sounds: the user's.
        settings: how much of everything.
        stage: told what is going on.

    Raises:
        SourceError: a folder has no sound, or no voice speaks.
    """
    material = Material(phrase, phones, workshop, sounds, settings, embedding, stage)
    lessons = _lessons(material, settings, stage)

    plan = replace(settings.head, seed=settings.seed)
    network = learn_head(lessons, plan, lambda told: stage(f"learn the phrase: {_progress(told)}"))

    def scorer(stream: Halves) -> Floats:
        return score_embeddings(network, stream)

    stage("choose the cutoff")
    chosen_on = _strangers(material.trial(scorer, "choose"), material, lessons, plan, stage)
    rule = choose_rule(chosen_on, settings.budget_per_hour)
    stage("test")
    return TrainedHead(
        network,
        rule,
        chosen_on,
        material.trial(scorer, "test"),
        speech_network(embedding, network),
        embedding.layers,
        _samples(material, settings),
        material.skipped,
    )


def _progress(now: Told) -> str:
    wrong = now.mistakes_per_hour
    return (
        f"step {now.step} of {now.steps}, loss {now.missed:.3f} missed, {now.taken:.3f} taken"
        + (f", {wrong:.1f} moments per hour mistaken" if wrong is not None else "")
    )


def _strangers(
    trial: Trial, material: Material, lessons: HeadLessons, plan: HeadPlan, stage: Stage
) -> Trial:
    """The trial on the whole background, as networks answer that do not know it."""
    folders: dict[str, list[Halves]] = {}
    for use in ("learn", "choose"):
        for part in material.heard[use]:
            folders.setdefault(part.kind, []).extend(part.streams)
    if len(folders) < FEWEST:
        return trial

    def told(group: Sequence[str], now: Told) -> None:
        stage(f"learn without {', '.join(group)}, to choose the cutoff on: {_progress(now)}")

    scores = answers_of_strangers(lessons, folders, plan, told)
    hours = {name: hours_of(name, rows, material.ear).hours for name, rows in folders.items()}
    heard = {name: (hours[name], scores[name]) for name in folders}
    return replace(trial, silent={**trial.silent, **heard})


# No near misses: a sound or two apart, as the same voices say them, they are no further from the
# phrase than people are, and forbid what people say (docs/wakeword.md).
def _lessons(material: Material, settings: Settings, stage: Stage) -> HeadLessons:
    said, words = material.phrases(), material.words()
    lessons, chance = HeadLessons(), np.random.default_rng(settings.seed + 5)
    step = round(material.ear.step_s * RATE_HZ)
    hear = _counting(material, stage, settings.hearings * len(said) + len(words))
    for _ in range(settings.hearings):
        for sound in said:
            placed = material.amid(sound, words, chance)
            lessons.phrases.append((hear(placed.sound), placed.start // step, placed.end // step))
    others = material.others(words)
    for index in others:
        clip = between_silence(words.sound(index), _LEAD_S, 0.4)
        lessons.others.append(hear(material.around.heard(clip, chance)))
    for part in material.heard["learn"]:
        lessons.streams.setdefault(part.kind, []).extend(part.streams)
    lessons.again = material.elsewhere()
    lessons.again["synthesised speech"] = [material.talk_stream(words, others)]
    return lessons


def _samples(material: Material, settings: Settings) -> dict[str, Sequence[Floats]]:
    """The phrase and other sound by turns; what a network is judged by taught it nothing."""
    words, heard = material.words(), material.heard
    parts = {
        "calibration": (material.phrases(), heard["learn"]),
        "evaluation": (list(material.judged().sounds()), heard["test"] or heard["choose"]),
    }
    found: dict[str, Sequence[Floats]] = {}
    for number, (name, (said, others)) in enumerate(parts.items()):
        chance = np.random.default_rng([settings.seed, 17, number])
        noises = [noise for part in others for noise in part.noises]
        sounds: list[Floats] = []
        while sum(map(len, sounds)) < 1.1 * settings.samples * STREAM_S * RATE_HZ:
            clip = material.amid(said[int(chance.integers(len(said)))], words, chance).sound
            sounds.append(clip)
            if noises:
                piece = some_piece(noises, len(clip), chance)
                sounds.append(material.around.heard(piece, chance))
        found[name] = some_streams(sounds, settings.samples)
    return found


def _counting(material: Material, stage: Stage, total: int) -> Callable[[Floats], Halves]:
    """The material's ear, which tells how far it is."""
    done = 0

    def hear(sound: Floats) -> Halves:
        nonlocal done
        if done % _STREAM_CLIPS == 0:
            stage(f"hear phrases and other words in rooms and noise: {done} of {total}")
        done += 1
        return material.ear.hear([sound])

    return hear
