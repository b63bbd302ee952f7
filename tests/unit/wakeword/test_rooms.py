"""Rooms and mixtures have the physics they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.sound.folders import hours, read_some, read_sounds, sound_files
from converters.sound.mixing import (
    at_level,
    at_speed,
    coloured_noise,
    mixed,
    narrowed,
    rms,
    some_piece,
    talking_rms,
    through_microphone,
    through_telephone,
)
from converters.sound.rooms import Room, impulse_response, in_room, some_room
from edge_sdk.audio.wavefile import wave_bytes
from edge_sdk.errors import SourceError

RATE_HZ = 16000
ROOM = Room((4.0, 5.0, 2.6), (1.0, 1.2, 1.5), (3.0, 3.5, 1.2), 0.4)


def test_a_response_begins_with_the_direct_sound_and_decays_as_told() -> None:
    response = impulse_response(ROOM, RATE_HZ, np.random.default_rng(0))
    assert response[0] == pytest.approx(1.0, abs=0.2)
    energy = np.cumsum(np.square(response[::-1].astype(np.float64)))[::-1]
    decay_db = 10 * np.log10(energy / energy[0])
    from_s, to_s = (np.argmax(decay_db < level) / RATE_HZ for level in (-5.0, -25.0))
    assert 3 * (to_s - from_s) == pytest.approx(ROOM.rt60_s, rel=0.35)


def test_reflections_arrive_when_the_walls_say_so() -> None:
    dry = Room((4.0, 4.0, 3.0), (2.0, 2.0, 1.5), (2.5, 2.0, 1.5), 0.05)
    response = impulse_response(dry, RATE_HZ, np.random.default_rng(0))
    # The nearest mirrored sources are those of the floor and the ceiling.
    first = round((np.hypot(0.5, 3.0) - 0.5) / 343.0 * RATE_HZ)
    assert np.abs(response[1 : first - 1]).max() == 0
    assert abs(response[first]) > 0


@given(seed=st.integers(0, 10**6), far=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_room_gives_a_finite_response(seed: int, far: bool) -> None:
    chance = np.random.default_rng(seed)
    room = some_room(chance, far)
    response = impulse_response(room, RATE_HZ, chance)
    assert np.isfinite(response).all() and response[0] != 0
    sound = chance.standard_normal(800).astype(np.float32)
    heard = in_room(sound, response)
    assert heard.shape == sound.shape and heard.dtype == np.float32
    assert rms(heard) == pytest.approx(rms(sound), rel=1e-3)


@given(snr_db=st.floats(-10, 40), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_mixture_has_the_ratio_asked_for(snr_db: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    speech = np.zeros(16000, np.float32)
    speech[4000:9000] = chance.standard_normal(5000)
    noise = coloured_noise(16000, chance, 3.0)
    added = mixed(speech, noise, snr_db) - speech
    assert 20 * np.log10(talking_rms(speech) / rms(added)) == pytest.approx(snr_db, abs=0.1)


def test_silence_has_no_ratio_and_stays() -> None:
    silent = np.zeros(1600, np.float32)
    noise = np.ones(1600, np.float32)
    assert not mixed(silent, noise, 0.0).any()
    assert not at_level(silent, -3.0).any()
    assert rms(np.zeros(0, np.float32)) == talking_rms(np.zeros(0, np.float32)) == 0.0


def test_pauses_do_not_make_speech_quieter() -> None:
    tone = np.sin(np.arange(8000) * 0.3).astype(np.float32)
    padded = np.concatenate((tone, np.zeros(24000, np.float32)))
    assert talking_rms(padded) == pytest.approx(rms(tone), rel=0.02)


def test_noise_has_its_slope() -> None:
    noise = coloured_noise(1 << 16, np.random.default_rng(1), 3.0)
    power = np.square(np.abs(np.fft.rfft(noise)))
    low, high = power[1000:2000].mean(), power[8000:16000].mean()
    assert 10 * np.log10(low / high) == pytest.approx(9.0, abs=1.0)


@given(seed=st.integers(0, 1000), size=st.integers(1, 5000))
@settings(max_examples=30, deadline=None)
def test_what_a_microphone_does_keeps_length_and_type(seed: int, size: int) -> None:
    chance = np.random.default_rng(seed)
    sound = chance.uniform(-1, 1, size).astype(np.float32)
    for heard in (
        through_microphone(sound, RATE_HZ, chance),
        through_telephone(sound),
        narrowed(sound, RATE_HZ, 4000.0),
        some_piece([sound], 300, chance),
        at_level(sound, 6.0),
    ):
        assert heard.dtype == np.float32 and np.isfinite(heard).all()
    assert np.abs(through_telephone(sound) - sound).max() < 0.05
    assert np.abs(at_level(sound, 6.0)).max() <= 1.0


def test_narrowing_takes_the_upper_half_out() -> None:
    chance = np.random.default_rng(0)
    sound = chance.standard_normal(4096).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(narrowed(sound, RATE_HZ, 4000.0)))
    assert spectrum[1100:].max() < 1e-2 < spectrum[:1000].min() + 1.0


@pytest.mark.parametrize("speed", [0.75, 1.0, 1.3])
def test_another_speed_moves_length_and_pitch(speed: float) -> None:
    tone = np.sin(2 * np.pi * 500.0 * np.arange(16000) / RATE_HZ).astype(np.float32)
    found = at_speed(tone, speed)
    assert len(found) == int(16000 / speed) and found.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(found))
    assert np.argmax(spectrum) * RATE_HZ / len(found) == pytest.approx(500.0 * speed, abs=3.0)


def test_a_folder_gives_its_sounds_in_order_at_the_rate_asked_for(tmp_path: Path) -> None:
    tone = np.sin(np.arange(8000) * 0.1).astype(np.float32) * 0.5
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.WAV").write_bytes(wave_bytes(tone, 8000))
    (tmp_path / "a.wav").write_bytes(wave_bytes(np.stack([tone, tone], 1), 16000))
    (tmp_path / "notes.txt").write_text("no sound")
    paths = sound_files([tmp_path])
    assert [path.name for path in paths] == ["a.wav", "b.WAV"]
    sounds = list(read_sounds(paths, 16000))
    assert [round(len(sound) / 16000, 1) for sound in sounds] == [0.5, 1.0]
    assert hours(sounds, 16000) == pytest.approx(1.5 / 3600, rel=0.01)


def test_other_formats_are_read_where_soundfile_is_there(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    tone = np.sin(np.arange(16000) * 0.1) * 0.5
    soundfile.write(tmp_path / "a.flac", tone, 16000)
    (sound,) = read_sounds(sound_files([tmp_path]), 16000)
    assert np.abs(sound[2000:14000] - tone[2000:14000]).max() < 0.05
    (tmp_path / "b.flac").write_bytes(b"no sound at all")
    with pytest.raises(SourceError) as caught:
        list(read_sounds([tmp_path / "b.flac"], 16000))
    assert caught.value.code == "source.bad-wave"


def test_a_folder_without_sound_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SourceError, match=place.name) as caught:
            sound_files([place])
        assert caught.value.code == "source.no-sounds"


def test_silence_and_broken_files_are_left_out_and_named(tmp_path: Path) -> None:
    tone = (np.sin(np.arange(16000) * 0.1) * 0.1).astype(np.float32)
    (tmp_path / "a.wav").write_bytes(wave_bytes(tone, 16000))
    (tmp_path / "b.wav").write_bytes(wave_bytes(np.zeros(16000, np.float32), 16000))
    (tmp_path / "c.wav").write_bytes(wave_bytes(np.zeros(0, np.float32), 16000))
    (tmp_path / "d.wav").write_bytes(b"no sound")
    paths = sound_files([tmp_path])
    found, skipped = read_some(paths, 16000)
    assert len(found) == 1
    assert [name for why in skipped for name in "abcd" if f"{name}.wav" in why] == list("bcd")
    assert "silence only" in skipped[0]
    with pytest.raises(SourceError) as caught:
        read_some(paths[1:], 16000)
    assert caught.value.code == "source.bad-wave"
