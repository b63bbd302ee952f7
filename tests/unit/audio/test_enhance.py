"""Spectra, bands and overlap-add: nothing is lost, and it does not matter how the sound was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.enhance import Enhancer
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.spectrum import GRID, Analysis, band_map, cut
from edge_sdk.contracts.audio import EnhanceSpec
from edge_sdk.errors import ContractError
from tests.unit.audio.test_features import noise

SPEC = EnhanceSpec()
HALF = SPEC.window_samples // 2


def nothing(features: Floats) -> Floats:
    """Factors that leave the sound alone."""
    return np.stack([np.ones(SPEC.bands), np.zeros(SPEC.bands)]).astype(np.float32)


class Remembering:
    """Factors that depend on this frame and on those before."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._mean: Floats = np.zeros((3, SPEC.bands), np.float32)

    def __call__(self, features: Floats) -> Floats:
        self._mean = np.float32(0.75) * self._mean + np.float32(0.25) * features
        return np.tanh(self._mean[:2])


def test_what_is_left_alone_comes_out_as_it_went_in() -> None:
    sound = noise(1.0)[:15555]
    enhancer = Enhancer(SPEC, nothing)
    found = np.concatenate((enhancer.push(sound), enhancer.flush()))
    assert len(found) == len(sound)
    assert np.abs(found - sound).max() < 1e-6


def test_nothing_comes_later_than_one_window() -> None:
    enhancer = Enhancer(SPEC, nothing)
    given_, got = 0, 0
    for sample in noise(0.2):
        given_, got = given_ + 1, got + len(enhancer.push(sample[None]))
        assert given_ - got < SPEC.window_samples
    assert enhancer.delay_s == 0.032


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 900), max_size=12))
def test_how_a_stream_was_cut_does_not_matter(sizes: list[int]) -> None:
    sound = noise(0.25, seed=sum(sizes))
    network = Remembering()
    enhancer = Enhancer(SPEC, network, network.forget)
    whole = np.concatenate((enhancer.push(sound), enhancer.flush()))
    parts, at = [], 0
    for size in sizes:
        parts.append(enhancer.push(sound[at : at + size]))
        at += size
    parts += [enhancer.push(sound[at:]), enhancer.flush()]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("size", [0, 1, HALF, HALF + 1])
def test_a_sound_that_is_shorter_than_a_window_keeps_its_length(size: int) -> None:
    sound = noise(0.1)[:size]
    enhancer = Enhancer(SPEC, nothing)
    found = np.concatenate((enhancer.push(sound), enhancer.flush()))
    assert len(found) == size
    assert np.allclose(found, sound, atol=1e-6)


def test_features_of_a_recording_are_those_of_its_stream() -> None:
    sound = np.stack([noise(0.3, 1), noise(0.3, 2, 0.01)])
    whole = Analysis(SPEC)
    expected = whole.features(whole.spectra(cut(sound, SPEC)))
    assert expected.shape == (2, 3, len(sound[0]) // HALF, SPEC.bands)
    for row, one in zip(expected, sound, strict=True):
        stream = Analysis(SPEC)
        frames = cut(one, SPEC)
        found = [stream.features(stream.spectra(frame[None])) for frame in frames]
        assert np.concatenate(found, axis=1).tobytes() == row.tobytes()


def test_features_do_not_tell_how_loud_the_microphone_is() -> None:
    loud, quiet = Analysis(SPEC), Analysis(SPEC)
    frames = cut(noise(0.5, level=0.3), SPEC)
    expected = loud.features(loud.spectra(frames))
    found = quiet.features(quiet.spectra(frames / 64))
    assert np.abs(found - expected).max() <= 2 * GRID


def test_silence_and_full_scale_give_finite_features() -> None:
    for level in (0.0, 1e-30, 1.0, 10.0):
        analysis = Analysis(SPEC)
        found = analysis.features(analysis.spectra(cut(noise(0.1, level=level), SPEC)))
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 3


@pytest.mark.parametrize("spec", [SPEC, EnhanceSpec(window_samples=320, bands=40, single_bins=12)])
def test_every_bin_belongs_to_its_bands(spec: EnhanceSpec) -> None:
    bands = band_map(spec)
    bins = spec.window_samples // 2 + 1
    assert np.allclose(bands.means(np.ones(bins)), 1.0)
    assert np.isclose(bands.size.sum(), bins)
    for single in range(spec.single_bins):
        only = np.eye(bins)[single]
        assert np.array_equal(bands.means(only), np.eye(spec.bands)[single])
    rising = bands.spread(np.arange(spec.bands).astype(np.complex64))
    assert np.allclose(rising[: spec.single_bins + 1], np.arange(spec.single_bins + 1))
    assert (np.diff(rising.real) >= 0).all()


@pytest.mark.parametrize(
    "spec",
    [
        EnhanceSpec(window_samples=511),
        EnhanceSpec(window_samples=128),
        EnhanceSpec(bands=64, single_bins=64),
    ],
)
def test_bands_that_do_not_fit_are_refused(spec: EnhanceSpec) -> None:
    with pytest.raises(ContractError) as caught:
        Enhancer(spec, nothing)
    assert caught.value.slug == "bad-features"
