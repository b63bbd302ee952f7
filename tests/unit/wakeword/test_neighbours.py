"""Near misses are near, and are misses."""

from __future__ import annotations

import math
import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.wakeword.neighbours import (
    OTHER,
    chance_accepts_per_hour,
    difference,
    near_misses,
    similar_words,
)
from converters.wakeword.phonemes import GAP, SOUNDS, plain, spelled
from converters.wakeword.workshop import holds

JARVIS = spelled("dʒˈɑːɹvɪs")
ROBIN = spelled("hˈeɪ ɹˈɑːbɪn")
WORDS = {
    "harvest": spelled("hˈɑːɹvɪst"),
    "service": spelled("sˈɜːvɪs"),
    "table": spelled("tˈeɪbəl"),
    "jar": spelled("dʒˈɑːɹ"),
    "jervis": spelled("dʒˈɑːɹvəs"),
}
utterances = st.lists(st.sampled_from((*SOUNDS, "ˈɑ", "ˈi", GAP)), max_size=8).map(tuple)


@given(utterances, utterances)
def test_difference_is_a_distance(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert difference(one, one) == 0
    assert difference(one, other) == pytest.approx(difference(other, one))
    assert difference(one, other) <= len(plain(one)) + len(plain(other))


def test_what_people_vary_is_no_difference() -> None:
    assert difference(JARVIS, WORDS["jervis"]) < OTHER
    assert difference(JARVIS, spelled("tʃˈɑːɹvɪs")) < OTHER
    assert difference(JARVIS, spelled("dʒˈɑːɹvɪ")) >= OTHER
    assert difference(ROBIN, spelled("ɹˈɑːbɪn")) >= OTHER
    assert difference(JARVIS, WORDS["harvest"]) >= OTHER


@pytest.mark.parametrize("phrase", [JARVIS, ROBIN], ids=["one word", "two words"])
@pytest.mark.parametrize("words", [WORDS, {}], ids=["vocabulary", "none"])
def test_near_misses_are_near_and_other(
    phrase: tuple[str, ...], words: dict[str, tuple[str, ...]]
) -> None:
    found = list(islice(near_misses(phrase, words, random.Random(1)), 200))
    for saying in found:
        said = WORDS[saying.words] if isinstance(saying.words, str) else saying.words
        assert difference(phrase, said) >= OTHER and plain(said) == saying.phones
        assert not holds(saying.phones, plain(phrase))
    assert len({saying.words for saying in found}) > 60
    assert any(isinstance(saying.words, str) for saying in found) == bool(words)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_same_seed_gives_the_same_misses(seed: int) -> None:
    one, other = (list(islice(near_misses(ROBIN, WORDS, random.Random(seed)), 5)) for _ in range(2))
    assert one == other


def test_similar_words_come_first_and_the_phrase_itself_never() -> None:
    words = WORDS | {"jarvis": JARVIS}
    assert similar_words(JARVIS, words)[0] in ("harvest", "service", "jar")
    assert "jarvis" not in similar_words(JARVIS, words)
    assert "jervis" not in similar_words(JARVIS, words)


def test_short_phrases_occur_by_chance() -> None:
    longer = chance_accepts_per_hour(ROBIN, WORDS)
    assert chance_accepts_per_hour(spelled("nˈoʊ"), WORDS) > 20 * longer
    assert chance_accepts_per_hour(ROBIN, {}) == math.inf
