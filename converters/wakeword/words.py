"""What to say: words of a text, and words that nobody has said before.

Invented words follow the rough shape of English syllables, so every sound meets every other; texts
give the words and their joins as they really occur. No list of words is kept here: the text is
the user's, or the manual that comes with Python.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converters.wakeword.phonemes import CONSONANTS, GAP, STRESS, VOWELS, Phones, pronounced
from edge_sdk.errors import SourceError

_ONSETS: Final = (
    *(c for c in CONSONANTS if c != "ŋ"),
    *(f"{a} {b}" for a in "pbkɡf" for b in "lɹ"),
    *("t ɹ", "d ɹ", "s t", "s p", "s k", "s l", "s m", "s n", "s w", "k w", "t w", "θ ɹ", "ʃ ɹ"),
    *("s t ɹ", "s p ɹ", "k j", "m j", "h j"),
)
_CODAS: Final = (
    *(c for c in CONSONANTS if c not in "wjh"),
    *("n t", "n d", "s t", "k s", "l d", "l t", "m p", "ŋ k", "ɹ t", "ɹ k", "ɹ d", "n s", "t s"),
    *("n z", "f t", "ɹ z", "l z", "n dʒ", "p s"),
)
_MOST_BYTES: Final = 4 * 2**20
MOST_WORDS: Final = 4000


@dataclass(frozen=True, slots=True)
class Saying:
    """One utterance to be spoken."""

    words: str | Phones
    """What the voice is given."""
    phones: Phones
    """How it is said in American English, without stress and gaps: the same for every accent."""


def words_of(text: str, most: int = MOST_WORDS) -> list[str]:
    """Its words in lower case, the most frequent first."""
    counts: dict[str, int] = {}
    for word in re.findall(r"(?<![\w.`'-])[A-Za-z]?[a-z]{1,13}(?![\w.`'-])", text):
        counts[word.lower()] = counts.get(word.lower(), 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:most]


def vocabulary(text: Path | None = None) -> dict[str, Phones]:
    """Words and their pronunciation.

    Args:
        text: a file of English; Python's manual by default.

    Raises:
        SourceError: ``source.missing-text``, or those of
            :func:`converters.wakeword.phonemes.pronounced`.
    """
    words = words_of(_text(text))
    spoken = zip(words, pronounced(words), strict=True)
    return {word: phones for word, phones in spoken if len(phones) >= 2 and GAP not in phones}


def _text(path: Path | None) -> str:
    if path is None:
        try:
            from pydoc_data.topics import topics
        except ImportError:  # Debian's python3-minimal
            return ""
        return " ".join(topics.values())
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except OSError as error:
        raise SourceError(
            "missing-text",
            f"Cannot read the text {path}: {error.strerror or error}.",
            "Name a file of plain English, or leave --text out.",
        ) from error


def invented(chance: random.Random) -> Phones:
    """A word of one to four syllables."""
    count = chance.choices((1, 2, 3, 4), (3, 5, 3, 1))[0]
    stressed = chance.randrange(count)
    found: list[str] = []
    for number in range(count):
        if chance.random() < 0.85:
            found += chance.choice(_ONSETS).split()
        vowel = chance.choice(VOWELS) if number == stressed or chance.random() < 0.6 else "ə"
        found.append(STRESS + vowel if number == stressed else vowel)
        if chance.random() < (0.6 if number == count - 1 else 0.25):
            found += chance.choice(_CODAS).split()
    return tuple(found)


def some_saying(
    words: dict[str, Phones], names: Sequence[str], chance: random.Random, most_words: int = 6
) -> Saying:
    """Some words in a row, of the vocabulary or invented.

    Args:
        words: see :func:`vocabulary`; only invented words when empty.
        names: its keys, in order.
    """
    count = 1 + min(int(chance.expovariate(0.5)), most_words - 1)
    if names and chance.random() < 0.6:
        # Frequent words are short and dull: half of the choice does not know of frequency.
        chosen = [
            names[int(len(names) * chance.random() ** (1.0 if chance.random() < 0.7 else 3.0))]
            for _ in range(count)
        ]
        return Saying(" ".join(chosen), joined([words[word] for word in chosen]))
    made = [invented(chance) for _ in range(min(count, 4))]
    return Saying(with_gaps(made), joined(made))


def with_gaps(words: Sequence[Phones]) -> Phones:
    """One utterance of several words."""
    found: list[str] = []
    for word in words:
        found += [*([GAP] if found else []), *word]
    return tuple(found)


def joined(words: Sequence[Phones]) -> Phones:
    """Their sounds in a row, without stress and gaps."""
    return tuple(p.lstrip(STRESS) for word in words for p in word if p != GAP)
