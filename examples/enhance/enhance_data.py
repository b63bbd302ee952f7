"""What the network learns from: sentences that synthesisers say, and noise.

Sentences are words in any order, which serves for sound; espeak-ng also reads numbers in dozens of
languages: other sounds, other rhythms. Noise is made up, and read from folders and files that
ENHANCE_NOISE names, separated by colons.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

from converters.sound.folders import read_sounds, sound_files
from converters.sound.mixing import without_silence
from converters.wakeword.voices import Voice, find_voices, say, some_manner, some_voice
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import EnhanceSpec
from edge_sdk.errors import SourceError

SPEC = EnhanceSpec()
WORDS = Path(__file__).with_name("words.txt")
LANGUAGES = Path(__file__).with_name("languages.txt")
ABROAD = 0.35
"""Share of espeak-ng's utterances that are numbers in other languages."""


def speech(count: int, seed: int) -> Iterator[Floats]:
    """So many utterances of a few seconds, (N,) each at 16 kHz.

    Raises:
        SourceError: ``source.no-voices``.
    """
    chance = random.Random(seed)
    voices, words = find_voices(), WORDS.read_text().split()
    languages = LANGUAGES.read_text().split()
    while count > 0:
        voice = some_voice(voices, chance)
        text = " ".join(chance.choices(words, k=chance.randrange(5, 16)))
        if voice.engine == "espeak-ng" and chance.random() < ABROAD:
            _, _, variant = voice.name.partition("+")
            voice = Voice("espeak-ng", f"{chance.choice(languages)}+{variant or 'm1'}")
            text = " ".join(str(chance.randrange(10 ** chance.randrange(1, 4))) for _ in range(7))
        try:
            yield say(text, voice, some_manner(chance))
        except SourceError:  # some voices cannot say some texts
            continue
        count -= 1


def recorded_noise(places: str = os.environ.get("ENHANCE_NOISE", "")) -> list[Floats]:
    """The recordings in folders and files, (N,) each at 16 kHz, without their digital silence."""
    if not places:
        return []
    files = sound_files([Path(place) for place in places.split(":")])
    return [without_silence(sound) for sound in read_sounds(files, SPEC.sample_rate_hz)]
