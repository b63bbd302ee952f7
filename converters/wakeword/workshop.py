"""What training speaks and hears, kept in a folder so that a second run need not do it again."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from converters.wakeword.corpus import INDEX, Corpus, Progress, speak_corpus
from converters.wakeword.neighbours import near_misses
from converters.wakeword.phonemes import Phones, plain
from converters.wakeword.voices import Voice
from converters.wakeword.words import Saying, some_saying

_HELD_OUT: Final = 6
"""One voice of so many is kept from training."""


class Workshop:
    """Speaks corpora, or finds those it has spoken.

    Args:
        folder: to keep them in.
        voices: all there are.
        words: a vocabulary, see :func:`converters.wakeword.words.vocabulary`.
        seed: of every choice.
        workers: voices that speak at a time.
    """

    def __init__(
        self,
        folder: Path,
        voices: Sequence[Voice],
        words: dict[str, Phones],
        *,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        self.folder, self._words, self._seed, self._workers = folder, words, seed, workers
        self.voices, self.held_out = split_voices(voices)

    def words(self, count: int, progress: Progress) -> Corpus:
        """Utterances of all kinds, to learn to hear by."""
        return self._corpus("words", "", count, self._talk, self.voices, progress)

    def talk(self, phrase: str, phones: Phones, count: int, progress: Progress) -> Corpus:
        """The same by voices that were kept from training, without the phrase."""

        def sayings(chance: random.Random) -> Iterator[Saying]:
            return (s for s in self._talk(chance) if not holds(s.phones, plain(phones)))

        return self._corpus("talk", phrase, count, sayings, self.held_out, progress)

    def phrases(
        self, phrase: str, phones: Phones, count: int, progress: Progress, held_out: bool = False
    ) -> Corpus:
        """The phrase, as spelled and as pronounced, calm and excited."""

        def sayings(chance: random.Random) -> Iterator[Saying]:
            while True:
                ending = chance.choice(("", "", "", "!", "?", ",", "."))
                words: str | Phones = phones if chance.random() < 0.25 else phrase + ending
                yield Saying(words, plain(phones))

        voices = self.held_out if held_out else self.voices
        kind = "phrases-new-voices" if held_out else "phrases"
        return self._corpus(kind, phrase, count, sayings, voices, progress)

    def near_misses(
        self, phrase: str, phones: Phones, count: int, progress: Progress, held_out: bool = False
    ) -> Corpus:
        """What sounds almost like it."""

        def sayings(chance: random.Random) -> Iterator[Saying]:
            return near_misses(phones, self._words, chance)

        voices = self.held_out if held_out else self.voices
        kind = "near-new-voices" if held_out else "near"
        return self._corpus(kind, phrase, count, sayings, voices, progress)

    def _talk(self, chance: random.Random) -> Iterator[Saying]:
        names = list(self._words)
        while True:
            yield some_saying(self._words, names, chance)

    def _corpus(
        self,
        kind: str,
        phrase: str,
        count: int,
        sayings: Callable[[random.Random], Iterator[Saying]],
        voices: Sequence[Voice],
        progress: Progress,
    ) -> Corpus:
        folder = self.folder / f"{kind}-{self._digest(phrase, count, voices)}"
        if (folder / INDEX).is_file():
            return Corpus(folder)
        seed = int.from_bytes(hashlib.sha256(folder.name.encode()).digest()[:4], "big")
        return speak_corpus(
            sayings(random.Random(seed)),
            voices,
            folder,
            count=count,
            seed=seed,
            kind=kind,
            workers=self._workers,
            progress=progress,
        )

    def _digest(self, phrase: str, count: int, voices: Sequence[Voice]) -> str:
        parts = [phrase, str(count), str(self._seed), *(voice.title for voice in voices)]
        parts += [f"{len(self._words)}", *list(self._words)[:50]]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def split_voices(voices: Sequence[Voice]) -> tuple[tuple[Voice, ...], tuple[Voice, ...]]:
    """Voices to learn from and voices to be judged by; the same person never is in both.

    espeak-ng's accents of one variant count as one person. Flite's few all teach.
    """
    held = [voice for voice in voices if voice.engine != "flite" and _person(voice) == 0]
    kept = [voice for voice in voices if voice not in held]
    return (tuple(kept), tuple(held)) if held and kept else (tuple(voices), tuple(voices))


def _person(voice: Voice) -> int:
    name = voice.name.partition("+")[2] or "plain"
    if voice.engine == "piper":
        name = voice.title
    return hashlib.sha256(name.encode()).digest()[0] % _HELD_OUT


def holds(phones: Phones, wanted: Phones) -> bool:
    """Whether these sounds occur in a row."""
    count = len(wanted)
    return any(phones[i : i + count] == wanted for i in range(len(phones) - count + 1))
