"""Voices that are installed speak; those that are not are named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converters.wakeword import voices as module
from converters.wakeword.corpus import Corpus, speak_corpus
from converters.wakeword.phonemes import spelled
from converters.wakeword.voices import Manner, Voice, find_voices, say, some_manner, some_voice
from converters.wakeword.words import Saying
from edge_sdk.errors import SourceError

ROBIN = spelled("hˈeɪ ɹˈɑːbɪn")


def installed(command: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(command) is None, reason=f"{command} is not installed")


@pytest.fixture
def no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    module._espeak_voices.cache_clear()
    module._flite_voices.cache_clear()
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture(autouse=True)
def forget_voices() -> Iterator[None]:
    yield
    module._espeak_voices.cache_clear()
    module._flite_voices.cache_clear()


@pytest.mark.parametrize(
    "voice",
    [
        pytest.param(Voice("espeak-ng", "en-gb+f3"), marks=installed("espeak-ng")),
        pytest.param(Voice("flite", "slt"), marks=installed("flite")),
    ],
    ids=lambda voice: voice.title,
)
@pytest.mark.parametrize("words", ["hey robin", ROBIN], ids=["text", "sounds"])
def test_a_voice_says_texts_and_sounds(voice: Voice, words: str | tuple[str, ...]) -> None:
    assert voice in find_voices()
    usual = say(words, voice)
    assert usual.dtype == np.float32 and 0.3 < len(usual) / 16000 < 2.0
    assert np.abs(usual).max() > 0.05
    assert len(say(words, voice, Manner(tempo=1.5))) < 0.85 * len(usual)
    small = say(words, voice, Manner(size=0.8))
    assert len(small) == pytest.approx(0.8 * len(usual), rel=0.05)


@installed("espeak-ng")
def test_no_robots_and_no_whispers() -> None:
    names = [voice.name.lower() for voice in find_voices()]
    assert len(names) > 100
    assert not [name for name in names if "robo" in name or "whisper" in name]


@installed("espeak-ng")
def test_a_voice_that_has_nothing_to_say_fails() -> None:
    for voice in (Voice("espeak-ng", "en-us"), Voice("espeak-ng", "xx-nobody")):
        with pytest.raises(SourceError) as caught:
            say("..." if voice.name == "en-us" else "hello", voice)
        assert caught.value.code == "source.voice-failed"


@pytest.mark.usefixtures("no_commands")
def test_nobody_can_speak() -> None:
    with pytest.raises(SourceError) as caught:
        find_voices()
    assert caught.value.code == "source.no-voices"
    with pytest.raises(SourceError) as caught:
        say("hello", Voice("espeak-ng", "en-us"))
    assert caught.value.code == "source.voice-failed"


def test_a_piper_model_has_as_many_voices_as_speakers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.onnx").touch()
    (tmp_path / "many.onnx.json").write_text(json.dumps({"num_speakers": 3}))
    monkeypatch.setattr(module.shutil, "which", lambda command: f"/usr/bin/{command}")
    found = module._piper_voices([tmp_path])
    assert [voice.title for voice in found] == ["piper:many", "piper:many#1", "piper:many#2"]


def test_a_piper_model_without_its_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "lonely.onnx").touch()
    for place in (tmp_path, tmp_path / "lonely.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(SourceError) as caught:
            module._piper_voices([place])
        assert caught.value.code == "source.bad-voice"
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty"):
        module._piper_voices([tmp_path / "empty"])


def test_every_engine_gets_its_share() -> None:
    many = [Voice("espeak-ng", f"v{i}") for i in range(300)] + [Voice("flite", "slt")]
    chance = random.Random(0)
    flite = sum(some_voice(many, chance).engine == "flite" for _ in range(1000))
    assert 300 < flite < 500
    manners = [some_manner(chance) for _ in range(200)]
    assert all(0.6 <= m.tempo <= 1.6 and 0.5 <= m.pitch <= 1.7 for m in manners)


@installed("espeak-ng")
def test_a_corpus_keeps_what_was_said(tmp_path: Path) -> None:
    sayings = [Saying("hey robin", ("h",)), Saying(ROBIN, ("ɹ",)), Saying("...", ())] * 2
    told: list[tuple[int, int]] = []
    corpus = speak_corpus(
        sayings,
        [Voice("espeak-ng", "en-us"), Voice("espeak-ng", "en-us+f2")],
        tmp_path / "corpus",
        count=6,
        seed=1,
        kind="test",
        progress=lambda done, total: told.append((done, total)),
    )
    assert [clip.phones for clip in corpus.clips] == [("h",), ("ɹ",)] * 2
    assert told == [(6, 6)]
    sounds = list(corpus.sounds())
    assert [len(sound) for sound in sounds] == [clip.samples for clip in corpus.clips]
    assert all(np.abs(sound).max() == pytest.approx(0.7, abs=1e-3) for sound in sounds)
    again = Corpus(tmp_path / "corpus")
    assert again.hours == corpus.hours > 0
    (tmp_path / "corpus" / "sound.i16").write_bytes(b"\0\0")
    with pytest.raises(SourceError) as caught:
        Corpus(tmp_path / "corpus")
    assert caught.value.code == "source.bad-corpus"


def test_a_corpus_of_failures_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SourceError) as caught:
        speak_corpus(
            [Saying("hello", ())] * 20,
            [Voice("flite", "slt")],
            tmp_path / "corpus",
            count=20,
            seed=0,
        )
    assert caught.value.code == "source.voice-failed"
    with pytest.raises(SourceError, match="no folder of spoken clips"):
        Corpus(tmp_path / "corpus")
