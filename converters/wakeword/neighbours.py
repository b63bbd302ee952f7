"""What sounds almost like a phrase, made from its sounds: what a network must learn to refuse.

People say a phrase in more ways than one, so not everything that differs is something else: only
utterances at least :data:`OTHER` away count, where a weak vowel that changes is a quarter of a
sound and a sound for one like it is half of one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from converters.wakeword.phonemes import (
    CONSONANTS,
    GAP,
    STRESS,
    VOWELS,
    Phones,
    is_vowel,
    neighbours_of,
    plain,
)
from converters.wakeword.words import Saying, joined, with_gaps

OTHER: Final = 1.0
"""Sounds of difference from which on an utterance is another one."""
_WEAK: Final = 0.25
_ALIKE: Final = 0.5
_NEAREST_WORDS: Final = 40
_TRIES: Final = 30
_SOUNDS_PER_S: Final = 12.0
"""In running English speech."""


def difference(one: Phones, other: Phones) -> float:
    """How many sounds two utterances differ by; gaps do not count."""
    a = [phone for phone in one if phone != GAP]
    b = [phone for phone in other if phone != GAP]
    row = [0.0]
    for phone in b:
        row.append(row[-1] + _alone(phone))
    for left in a:
        last, row[0] = row[0], row[0] + _alone(left)
        for j, right in enumerate(b, 1):
            changed = last + _exchange(left, right)
            last = row[j]
            row[j] = min(changed, row[j] + _alone(left), row[j - 1] + _alone(right))
    return row[-1]


def _alone(phone: str) -> float:
    return _WEAK if phone in ("ə", "h") else _ALIKE if phone in ("ɪ", "ʌ", "ɹ") else 1.0


def _exchange(one: str, other: str) -> float:
    left, right = one.lstrip(STRESS), other.lstrip(STRESS)
    if left == right:
        return 0.0
    if is_vowel(left) and is_vowel(right) and not (STRESS in one and STRESS in other):
        return _WEAK if right in neighbours_of(left) or "ə" in (left, right) else _ALIKE
    return _ALIKE if right in neighbours_of(left) else 1.0


def near_misses(
    phrase: Phones, words: dict[str, Phones], chance: random.Random
) -> Iterator[Saying]:
    """Utterances that are almost the phrase, without end.

    Args:
        phrase: with stress and gaps.
        words: a vocabulary to find similar words in; may be empty.
    """
    near = similar_words(phrase, words)
    makers: list[tuple[Callable[[], str | Phones | None], float]] = [
        (lambda: _edited(phrase, chance), 5.0),
        (lambda: _part(phrase, chance), 3.0),
        (lambda: _reordered(phrase, chance), 1.0 if GAP in phrase else 0.0),
        (lambda: _with_a_word(phrase, near, words, chance), 2.0 if near else 0.0),
        (lambda: chance.choice(near) if near else None, 2.0 if near else 0.0),
    ]
    weights = [weight for _, weight in makers]
    while True:
        made = chance.choices(makers, weights)[0][0]()
        phones = words[made] if isinstance(made, str) else made
        if made and phones and difference(phrase, phones) >= OTHER:
            yield Saying(made, plain(phones))


def similar_words(phrase: Phones, words: dict[str, Phones]) -> list[str]:
    """Those of the vocabulary that differ least from the phrase or one of its words."""
    parts = [part for part in (phrase, *_words(phrase)) if len(part) >= 2]
    ranked = [
        (min(difference(part, phones) / len(part) for part in parts), word)
        for word, phones in words.items()
        if any(abs(len(part) - len(phones)) <= 3 for part in parts)
    ]
    near = [word for _, word in sorted(ranked)[: 2 * _NEAREST_WORDS]]
    return [word for word in near if difference(phrase, words[word]) >= OTHER][:_NEAREST_WORDS]


def _words(phrase: Phones) -> list[Phones]:
    found: list[list[str]] = [[]]
    for phone in phrase:
        if phone == GAP:
            found.append([])
        else:
            found[-1].append(phone)
    return [tuple(word) for word in found if word]


def _edited(phrase: Phones, chance: random.Random) -> Phones | None:
    """One to three sounds dropped, doubled into something else, exchanged or added."""
    for _ in range(_TRIES):
        found = list(phrase)
        for _ in range(chance.choice((1, 1, 2, 2, 3))):
            places = [i for i, phone in enumerate(found) if phone != GAP]
            if len(places) < 2:
                break
            _edit(found, chance.choice(places), chance)
        if difference(phrase, tuple(found)) >= OTHER and any(map(is_vowel, found)):
            return tuple(found)
    return None


def _edit(found: list[str], at: int, chance: random.Random) -> None:
    phone = found[at]
    mark, sound = (STRESS, phone[1:]) if phone.startswith(STRESS) else ("", phone)
    kind = chance.random()
    if kind < 0.2:
        del found[at]
    elif kind < 0.3:
        found.insert(at, chance.choice(CONSONANTS[:-1]))
    elif kind < 0.4 and at + 1 < len(found) and GAP not in (found[at], found[at + 1]):
        found[at], found[at + 1] = found[at + 1], found[at]
    elif kind < 0.65 and neighbours_of(sound):
        found[at] = mark + chance.choice(neighbours_of(sound))
    else:
        found[at] = mark + chance.choice(VOWELS if is_vowel(sound) else CONSONANTS)


def _part(phrase: Phones, chance: random.Random) -> Phones:
    """Its beginning, its end, or one of its words."""
    words = _words(phrase)
    if len(words) > 1 and chance.random() < 0.5:
        return chance.choice(words)
    sounds = [phone for phone in phrase if phone != GAP]
    count = chance.randint(max(1, len(sounds) // 3), max(1, len(sounds) - 1))
    return tuple(sounds[:count] if chance.random() < 0.5 else sounds[-count:])


def _reordered(phrase: Phones, chance: random.Random) -> Phones:
    words = _words(phrase)
    chance.shuffle(words)
    return with_gaps(words)


def _with_a_word(
    phrase: Phones, near: Sequence[str], words: dict[str, Phones], chance: random.Random
) -> Phones:
    """One of its words is another word, or a word comes before or after a part of it."""
    other = words[chance.choice(near) if chance.random() < 0.4 else chance.choice(list(words))]
    parts = _words(phrase)
    if len(parts) > 1:
        parts[chance.randrange(len(parts))] = other
        return with_gaps(parts)
    part = _part(phrase, chance)
    return with_gaps([other, part] if chance.random() < 0.5 else [part, other])


def chance_accepts_per_hour(phrase: Phones, words: dict[str, Phones]) -> float:
    """How often an hour of talk holds these sounds in a row, or those with one taken for another.

    A model of pairs of sounds, counted over the vocabulary; what a perfect ear would still have to
    tell apart by meaning alone. Infinite without a vocabulary.
    """
    wanted = plain(phrase)
    spoken = [joined([phones]) for phones in words.values()]
    total = sum(map(len, spoken))
    if not total or not wanted:
        return math.inf
    single: dict[str, float] = {}
    pairs: dict[tuple[str, str], float] = {}
    for sounds in spoken:
        for sound in sounds:
            single[sound] = single.get(sound, 0.0) + 1.0
        for pair in pairwise(sounds):
            pairs[pair] = pairs.get(pair, 0.0) + 1.0

    def likely(sounds: Sequence[str]) -> float:
        found = single.get(sounds[0], 0.5) / total
        for pair in pairwise(sounds):
            alone = single.get(pair[1], 0.5) / total
            found *= (pairs.get(pair, 0.0) + 20.0 * alone) / (single.get(pair[0], 0.5) + 20.0)
        return found

    confused = [
        (*wanted[:i], other, *wanted[i + 1 :])
        for i, sound in enumerate(wanted)
        for other in neighbours_of(sound)
    ]
    return 3600.0 * _SOUNDS_PER_S * (likely(wanted) + sum(map(likely, confused)))
