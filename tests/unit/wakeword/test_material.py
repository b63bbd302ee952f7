"""What the user gives, as lessons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.wakeword.augment import RATE_HZ
from converters.wakeword.ears import BANDS
from converters.wakeword.material import Material, Settings, Sounds, beside, trimmed
from converters.wakeword.workshop import Workshop
from edge_sdk.audio.wavefile import wave_bytes

TALK_HZ, HUM_HZ = 1000, 300


@pytest.mark.parametrize(
    ("said", "recorded", "heard"), [(100, 0, 0), (100, 1, 20), (100, 10, 50), (100, 80, 80)]
)
def test_few_recordings_count_as_many(said: int, recorded: int, heard: int) -> None:
    voices, people = np.zeros(10, np.float32), np.ones(10, np.float32)
    found = beside([voices] * said, [people] * recorded)
    assert sum(one is voices for one in found) == said
    assert sum(one is people for one in found) == heard


def test_a_recording_ends_where_the_phrase_does() -> None:
    chance = np.random.default_rng(0)
    speech = (0.2 * chance.standard_normal(6400)).astype(np.float32)
    room = (0.0005 * chance.standard_normal(16000)).astype(np.float32)
    found = trimmed(np.concatenate((room, speech, room)))
    assert len(speech) <= len(found) <= len(speech) + 320


def strength(sound: np.ndarray, hz: float) -> float:
    """Of a tone, between 0 and 1."""
    turn = np.exp(-2j * np.pi * hz * np.arange(len(sound)) / RATE_HZ)
    return float(abs(sound @ turn) / np.linalg.norm(sound) / np.sqrt(len(sound) / 2))


def tones(folder: Path, hz: float) -> Path:
    folder.mkdir()
    sound = 0.1 * np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ)
    for number in range(12):
        (folder / f"{number}.wav").write_bytes(wave_bytes(sound.astype(np.float32), RATE_HZ))
    return folder


@pytest.mark.parametrize("named", [True, False])
def test_noise_in_lessons_is_what_was_named_as_such(tmp_path: Path, named: bool) -> None:
    talk, hum = tones(tmp_path / "talk", TALK_HZ), tones(tmp_path / "hum", HUM_HZ)
    background = () if named else (hum,)
    sounds = Sounds(background=(talk, *background), noise=(hum,) if named else ())
    (tmp_path / "work").mkdir()
    workshop = Workshop(tmp_path / "work", [], {})
    material = Material("robin", (), workshop, sounds, Settings(), BANDS, lambda text: None)
    chance = np.random.default_rng(0)
    heard = [material.around.noise(4000, chance) for _ in range(40)]
    assert any(strength(sound, HUM_HZ) > 0.9 for sound in heard) is named
    assert not any(strength(sound, TALK_HZ) > 0.9 for sound in heard)
    assert {part.kind for part in material.heard["learn"]} == {"talk", "hum"}
