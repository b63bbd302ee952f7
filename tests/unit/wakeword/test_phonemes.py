"""One inventory of sounds for every voice."""

from __future__ import annotations

import random
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.wakeword.phonemes import (
    GAP,
    SOUNDS,
    STRESS,
    for_espeak,
    for_flite,
    is_vowel,
    neighbours_of,
    plain,
    pronounced,
    spelled,
)
from converters.wakeword.words import (
    invented,
    joined,
    some_saying,
    vocabulary,
    with_gaps,
    words_of,
)
from edge_sdk.errors import SourceError

needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


def test_espeaks_signs_become_our_sounds() -> None:
    assert spelled("dʒˈɑːɹvɪs") == ("dʒ", STRESS + "ɑ", "ɹ", "v", "ɪ", "s")
    assert spelled("hˈeɪ  ɹˈɑːbɪn\n") == ("h", "ˈeɪ", GAP, "ɹ", "ˈɑ", "b", "ɪ", "n")
    assert plain(spelled("hˈeɪ ɹˈɑːbɪn")) == ("h", "eɪ", "ɹ", "ɑ", "b", "ɪ", "n")


@given(st.text(alphabet="aɪeʃtˈˌːhdʒʌ_ \n|漢1"))
def test_whatever_is_written_there_are_only_our_sounds(ipa: str) -> None:
    found = spelled(ipa)
    assert set(plain(found)) <= set(SOUNDS)
    assert not found or GAP not in (found[0], found[-1])
    assert all(is_vowel(phone) for phone in found if phone.startswith(STRESS))


@given(st.lists(st.sampled_from(SOUNDS), min_size=1))
def test_sounds_spell_themselves_one_by_one(sounds: list[str]) -> None:
    assert [spelled(sound) for sound in sounds] == [(sound,) for sound in sounds]
    assert for_flite(tuple(sounds)).split()[1:-1]
    assert for_espeak(tuple(sounds)).count("|") == len(sounds) - 1


def test_near_sounds_are_of_a_kind_and_mutual() -> None:
    assert "z" in neighbours_of("s") and "ʃ" in neighbours_of("s")
    for sound in SOUNDS:
        assert sound not in neighbours_of(sound)
        assert all(sound in neighbours_of(other) for other in neighbours_of(sound))


def test_words_of_a_text_come_by_frequency_without_code() -> None:
    text = "The cat saw the Dog. `code` x_y don't a.b the cat 42 CAPITALS"
    assert words_of(text)[:2] == ["the", "cat"]
    assert {"code", "x", "don", "CAPITALS", "b"}.isdisjoint(words_of(text))
    assert len(words_of(text, most=2)) == 2


@given(st.integers(0, 10**6))
def test_an_invented_word_can_be_said(seed: int) -> None:
    word = invented(random.Random(seed))
    assert sum(phone.startswith(STRESS) for phone in word) == 1
    assert set(plain(word)) <= set(SOUNDS)
    assert joined([word, word]) == plain(with_gaps([word, word]))


def test_sayings_say_what_they_spell() -> None:
    words = {"hello": spelled("həlˈoʊ"), "world": spelled("wˈɜːld")}
    chance = random.Random(3)
    kinds = set()
    for _ in range(50):
        saying = some_saying(words, list(words), chance)
        kinds.add(type(saying.words))
        if isinstance(saying.words, str):
            assert saying.phones == joined([words[w] for w in saying.words.split()])
        else:
            assert saying.phones == plain(saying.words)
    assert kinds == {str, tuple}


@needs_espeak
def test_espeak_says_how_words_are_said() -> None:
    lines = ["hey robin", "thirty-three. really?", "---", "a [[b]] 7"]
    robin, thirty, nothing, signs = pronounced(lines)
    assert plain(robin) == ("h", "eɪ", "ɹ", "ɑ", "b", "ɪ", "n")
    assert thirty[0] == "θ" and not nothing and signs
    assert pronounced(["hey robin"]) == [robin]


@needs_espeak
def test_pythons_manual_has_words_enough() -> None:
    words = vocabulary()
    assert len(words) > 1000
    assert words["function"][0] == "f"


def test_without_espeak_nothing_can_be_pronounced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError) as caught:
        pronounced(["hey"])
    assert caught.value.code == "source.no-voices"
