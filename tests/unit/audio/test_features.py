"""The front end: the same bits however the stream is cut, and values that mean what they say."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.bands import make_bands
from edge_sdk.audio.features import GRID, FrontEnd, features
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.errors import ContractError

RATE = 16000
SPEC = FeatureSpec()
LOG = FeatureSpec(compression="log")


def noise(seconds: float, seed: int = 0, level: float = 0.05) -> Floats:
    random = np.random.default_rng(seed)
    return (level * random.standard_normal(int(seconds * RATE))).astype(np.float32)


def tone(hertz: float, seconds: float = 1.0, level: float = 0.1) -> Floats:
    turns = hertz * np.arange(int(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * turns)).astype(np.float32)


def cut(samples: Floats, lengths: list[int]) -> list[Floats]:
    """Blocks of the given lengths in turn, until nothing is left."""
    blocks, at, turn = [], 0, 0
    while at < len(samples):
        blocks.append(samples[at : at + lengths[turn % len(lengths)]])
        at += lengths[turn % len(lengths)]
        turn += 1
    return blocks


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    st.sampled_from(["pcen", "log"]),
    st.integers(0, 9),
)
def test_a_stream_gives_the_bits_of_the_whole(
    lengths: list[int], compression: str, seed: int
) -> None:
    spec = FeatureSpec(compression=compression)  # type: ignore[arg-type]
    samples = noise(0.8, seed)
    front = FrontEnd(spec)
    parts = [front.push(block) for block in cut(samples, lengths)]
    assert np.array_equal(np.concatenate(parts), features(samples, spec))


def test_a_long_recording_gives_the_bits_of_its_stream() -> None:
    samples = noise(3.0)
    front = FrontEnd(SPEC)
    parts = [front.push(block) for block in cut(samples, [160])]
    assert np.array_equal(np.concatenate(parts), features(samples, SPEC))


def test_frames_are_counted_by_hops() -> None:
    assert features(noise(1.0), SPEC).shape == (98, 40)
    assert features(np.zeros(399, np.float32), SPEC).shape == (0, 40)
    assert features(np.zeros(400, np.float32), SPEC).shape == (1, 40)
    assert features(np.zeros(0, np.float32), SPEC).shape == (0, 40)


def test_values_lie_on_the_grid_and_have_a_bound() -> None:
    samples = np.concatenate((np.zeros(RATE, np.float32), noise(1.0, level=0.5)))
    found = features(samples, SPEC)
    assert found.dtype == np.float32
    assert np.array_equal(np.rint(found / GRID) * GRID, found)
    assert found.min() >= -GRID
    assert 3 < found.max() < 6, "the worst there is: loud after digital silence"


def test_noise_of_the_last_bits_does_not_reach_the_features() -> None:
    """What processors differ by, a thousand times over, changes hardly any value."""
    samples = noise(2.0)
    front, other = FrontEnd(SPEC), FrontEnd(SPEC)
    other._window = front._window * (1 + 1e-13 * np.random.default_rng(1).standard_normal(400))
    assert np.array_equal(front.push(samples), other.push(samples))


SPECS = {
    "pcen": FeatureSpec(),
    "log": FeatureSpec(compression="log"),
    "slaney": FeatureSpec(kind="slaney", bands=32, high_hz=3800.0, compression="log"),
}
DIGESTS = {
    "pcen": "4a1c8dac65fecef465d017b43b9a2cae2fc21bdd295377fdacd799e41c161c0d",
    "log": "e147523363f920cf9f05da8e0ff757ca83b58818e106ac0297adebb118bb61d5",
    "slaney": "a35008593ec8dc1f9e9f563bf2a71131d2746e4e12ce88ee1e989527be717703",
}
"""Of what x86-64 computed; an ARM device and every other numpy must find the same."""


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_every_machine_computes_the_same(name: str) -> None:
    # Whole numbers only: the sound itself must not depend on a sine.
    state, values = 12345, []
    for _ in range(RATE):
        state = (1103515245 * state + 12345) % 2**31
        values.append((state >> 16) % 4001 - 2000)
    samples = np.asarray(values, np.float32) / np.float32(2**15)
    found = features(samples, SPECS[name]).astype("<f4").tobytes()
    assert hashlib.sha256(found).hexdigest() == DIGESTS[name]


def test_slaney_spaces_bands_evenly_up_to_1_khz() -> None:
    starts = make_bands(msgspec.structs.replace(SPECS["slaney"], fft_samples=8192)).starts * (
        RATE / 8192
    )
    below = np.diff(starts[starts < 900])
    above = starts[starts > 1000] + SPECS["slaney"].low_hz
    assert np.ptp(below) < 4.0 and len(below) > 10, "to a bin"
    assert np.ptp(above[1:] / above[:-1]) < 0.01, "then by one ratio"


def test_an_agent_refuses_features_that_it_does_not_know() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"kind": "bark"}', type=FeatureSpec)


def test_a_tone_lies_in_its_band() -> None:
    mean = [features(tone(hertz), LOG)[5:].mean(axis=0) for hertz in (300, 1000, 3000, 6000)]
    peaks = [int(values.argmax()) for values in mean]
    assert peaks == sorted(peaks)
    assert len(set(peaks)) == 4
    assert all(np.sort(values)[-7] < values.max() - 5 for values in mean), "and nowhere else"


def test_log_energy_is_that_of_full_scale() -> None:
    loud, quiet = features(tone(1000, level=0.5), LOG), features(tone(1000, level=0.05), LOG)
    difference = (loud - quiet)[5:].max(axis=1)
    assert np.allclose(difference, np.log(100), atol=0.01), "20 dB"


def test_a_constant_offset_changes_nothing_that_matters() -> None:
    plain, lifted = noise(1.0, level=0.01), noise(1.0, level=0.01) + np.float32(0.25)
    assert np.abs(features(plain, SPEC) - features(lifted, SPEC)).max() < 0.01


def test_pcen_hardly_hears_the_gain() -> None:
    """A microphone that is 20 dB quieter gives about the same picture."""
    rhythm = (np.arange(3 * RATE) // 2400 % 3 == 0).astype(np.float32) * 0.9 + 0.1
    voice = noise(3.0, level=0.2) * rhythm
    near, far = features(voice, SPEC), features(voice * np.float32(0.1), SPEC)
    assert np.abs(near - far).mean() < 0.1 * near.std()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"high_hz": 9000.0}, "9000"),
        ({"low_hz": 5000.0, "high_hz": 400.0}, "5000"),
        ({"bands": 256}, "narrower"),
        ({"window_samples": 600}, "must not fall"),
        ({"hop_samples": 500}, "must not fall"),
    ],
)
def test_an_impossible_specification_is_refused(changes: dict[str, float], what: str) -> None:
    with pytest.raises(ContractError) as caught:
        FrontEnd(FeatureSpec(**changes))  # type: ignore[arg-type]
    assert caught.value.code == "contract.bad-features"
    assert what in caught.value.cause
