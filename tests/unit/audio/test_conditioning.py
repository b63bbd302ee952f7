"""Any rate, width and number of channels becomes the one sound that models hear."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.condition import Conditioner, conditioned
from edge_sdk.audio.levels import FAULTS, LevelWatch
from edge_sdk.audio.offset import OffsetRemoval
from edge_sdk.audio.resample import Resampler, resample
from edge_sdk.audio.samples import (
    BYTES,
    Encoding,
    Floats,
    SoundFormat,
    decode_samples,
    mono,
)
from edge_sdk.errors import SourceError
from tests.unit.audio.test_features import cut, noise

RATES = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]


def sine(hertz: float, rate_hz: int, seconds: float = 0.5) -> Floats:
    turns = hertz * np.arange(int(seconds * rate_hz)) / rate_hz
    return np.sin(2 * np.pi * turns).astype(np.float32)


def decibels(signal: Floats, error: Floats) -> float:
    return float(10 * np.log10(np.square(signal).mean() / np.square(error).mean()))


@pytest.mark.parametrize("rate_hz", RATES)
def test_speech_keeps_its_shape_and_place_at_another_rate(rate_hz: int) -> None:
    found = resample(sine(1000, rate_hz), rate_hz, 16000)
    wanted = sine(1000, 16000)
    assert len(found) == len(wanted)
    inside = slice(200, -200)
    error = found[inside] - wanted[inside]
    assert not error.any() if rate_hz == 16000 else decibels(wanted[inside], error) > 80


@pytest.mark.parametrize("rate_hz", [rate for rate in RATES if rate > 18000])
def test_what_the_lower_rate_cannot_hold_is_gone(rate_hz: int) -> None:
    found = resample(sine(9000, rate_hz), rate_hz, 16000)[200:-200]
    assert 10 * np.log10(np.square(found).mean() * 2) < -80


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RATES), st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_resampled_blocks_are_the_bits_of_the_whole(rate_hz: int, lengths: list[int]) -> None:
    samples = noise(0.3)
    stream = Resampler(rate_hz, 16000)
    parts = [stream.push(block) for block in cut(samples, lengths)] + [stream.flush()]
    assert np.array_equal(np.concatenate(parts), resample(samples, rate_hz, 16000))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=5), st.sampled_from([16000, 44100]))
def test_a_conditioned_stream_is_the_bits_of_the_whole(lengths: list[int], rate_hz: int) -> None:
    stereo = np.stack((noise(0.25, 1), noise(0.25, 2) + np.float32(0.2)), axis=1)
    stream = Conditioner(rate_hz, 16000)
    parts = [stream.push(block) for block in cut(stereo, lengths)] + [stream.flush()]
    assert np.array_equal(np.concatenate(parts), conditioned(stereo, rate_hz, 16000))


def test_a_stream_can_begin_again_after_its_end() -> None:
    stream, samples = Resampler(44100, 16000), noise(0.2)
    first = np.concatenate((stream.push(samples), stream.flush()))
    second = np.concatenate((stream.push(samples), stream.flush()))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("rate_hz", [0, -1, 44099, 999_999])
def test_a_rate_that_no_device_has_is_refused(rate_hz: int) -> None:
    with pytest.raises(SourceError) as caught:
        Resampler(rate_hz, 16000)
    assert caught.value.code == "source.bad-rate"


def test_an_offset_goes_within_a_second_and_speech_stays() -> None:
    voice = sine(200, 16000, 2.0) * np.float32(0.1)
    found = OffsetRemoval(160).push(voice + np.float32(0.3))
    assert abs(found[16000:].mean()) < 1e-3
    assert decibels(voice[16000:], found[16000:] - voice[16000:]) > 40


PACKED: dict[Encoding, bytes] = {
    "u8": bytes([128, 192, 0]),
    "s16": struct.pack("<3h", 0, 2**14, -(2**15)),
    "s24": bytes([0, 0, 0, 0, 0, 0x40, 0, 0, 0x80]),
    "s32": struct.pack("<3i", 0, 2**30, -(2**31)),
    "f32": struct.pack("<3f", 0, 0.5, -1),
    "f64": struct.pack("<3d", 0, 0.5, -1),
}


@pytest.mark.parametrize("encoding", sorted(BYTES))
def test_every_encoding_means_the_same(encoding: Encoding) -> None:
    found = decode_samples(PACKED[encoding], SoundFormat(16000, 1, encoding))
    assert found.dtype == np.float32
    assert found.tolist() == [[0.0], [0.5], [-1.0]]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(sorted(BYTES)), st.integers(1, 5))
def test_any_bytes_decode_to_bounded_numbers(
    data: bytes, encoding: Encoding, channels: int
) -> None:
    form = SoundFormat(16000, channels, encoding)
    found = decode_samples(data, form)
    assert found.shape == (len(data) // form.frame_bytes, channels)
    assert np.isfinite(found).all()
    assert np.abs(found).max(initial=0) <= 10


def test_channels_are_averaged_or_picked() -> None:
    stereo = np.asarray([[0.5, -0.5], [1.0, 0.5]], np.float32)
    assert mono(stereo).tolist() == [0.0, 0.75]
    assert mono(stereo, 1).tolist() == [-0.5, 0.5]
    assert mono(stereo[:, :1]).tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("sound", "fault"),
    [
        (np.zeros(96000, np.float32), "silent"),
        (np.clip(sine(200, 16000, 6.0) * 3, -1, 1), "clipped"),
        (noise(6.0, level=0.01) + np.float32(0.4), "offset"),
        (noise(6.0, level=0.01), ""),
        (noise(6.0, level=0.0005), ""),
    ],
)
def test_faults_of_the_sound_are_named(sound: Floats, fault: str) -> None:
    watch = LevelWatch(16000)
    for block in cut(sound, [700, 33]):
        watch.push(block)
    assert watch.fault == fault
    watch.push(noise(0.5, level=0.05))
    assert watch.fault == "", "good sound takes it back"


def test_a_short_silence_is_no_fault() -> None:
    watch = LevelWatch(16000)
    watch.push(np.zeros(3 * 16000, np.float32))
    assert watch.fault == ""
    assert watch.latest is not None
    assert watch.latest.rms_db == -120.0


def test_channels_that_cancel_each_other_are_named_and_taken_back() -> None:
    loud = noise(6.0, level=0.1)
    stereo = np.stack((loud, -loud), 1)
    conditioner = Conditioner(16000, 16000)
    conditioner.push(stereo)
    assert conditioner.fault == "cancelled"
    assert "channel" in FAULTS[conditioner.fault]
    conditioner.push(np.zeros((16000, 2), np.float32))
    assert conditioner.fault == "silent"
    picked = Conditioner(16000, 16000, channel=1)
    picked.push(stereo)
    assert picked.fault == ""
