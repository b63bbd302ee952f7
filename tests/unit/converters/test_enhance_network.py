"""The enhancer's network looks back only, learns, and its loss knows what is better."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from converters.enhance.loss import enhancement_loss, overlap_add, si_sdr
from converters.enhance.network import EnhanceNetwork
from converters.enhance.noisy import MADE_UP, noisy_speech
from converters.enhance.train import Progress, applied, batch_of, train_for
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.spectrum import Analysis, cut, window
from edge_sdk.contracts.audio import EnhanceSpec
from tests.unit.audio.test_features import noise, tone

SPEC = EnhanceSpec(window_samples=128, bands=32, single_bins=16)
SHAPE = torch.from_numpy(window(SPEC).astype(np.float32))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads would wait for each other longer than so little work takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small() -> EnhanceNetwork:
    torch.manual_seed(0)
    return EnhanceNetwork(SPEC.bands, channels=8, units=8, turns=1)


def test_step_by_step_it_says_what_it_says_of_the_whole() -> None:
    network = small().eval()
    x = torch.randn(2, 3, 20, SPEC.bands)
    with torch.no_grad():
        whole, *_ = network(x, *network.memories(2))
        memories, steps = network.memories(2), []
        for at in range(x.shape[2]):
            step, *memories = network(x[:, :, at : at + 1], *memories)
            steps.append(step)
    assert torch.allclose(torch.cat(steps, 2), whole, atol=1e-6)
    assert whole[:, 0].min() >= 0
    assert whole.abs().max() <= 1


def test_the_future_changes_nothing() -> None:
    network = small().eval()
    x = torch.randn(1, 3, 20, SPEC.bands)
    other = x.clone()
    other[:, :, 12:] = torch.randn(1, 3, 8, SPEC.bands)
    with torch.no_grad():
        found, *_ = network(x, *network.memories(1))
        changed, *_ = network(other, *network.memories(1))
    assert torch.equal(found[:, :, :12], changed[:, :, :12])
    assert not torch.allclose(found[:, :, 12:], changed[:, :, 12:])


def test_the_ratio_of_signal_to_distortion_does_not_depend_on_loudness() -> None:
    chance = torch.Generator().manual_seed(0)
    clean, other = torch.randn(2, 1, 16000, generator=chance)
    for decibels in (0.0, 10.0, 20.0):
        noisy = clean + 10 ** (-decibels / 20) * other
        assert float(si_sdr(0.3 * noisy, clean)) == pytest.approx(decibels, abs=0.2)


def test_the_nearer_estimate_has_the_smaller_loss() -> None:
    analysis = Analysis(SPEC)
    speech, hiss = tone(440.0, 0.5), noise(0.5, level=0.05)
    clean, noisy = (
        torch.from_numpy(analysis.spectra(cut(sound[None], SPEC)).astype(np.complex64))
        for sound in (speech, speech + hiss)
    )
    steps = [clean + share * (noisy - clean) for share in (0.0, 0.3, 1.0)]
    losses = [float(enhancement_loss(step, clean, SHAPE)) for step in steps]
    assert losses == sorted(losses)
    half = SPEC.window_samples // 2
    back = overlap_add(clean, SHAPE)[0].numpy()
    assert np.allclose(back, speech[: len(back)], atol=1e-5), "a spectrum gives its sound back"
    assert len(back) == (clean.shape[1] - 1) * half


def test_factors_are_spread_as_the_device_spreads_them() -> None:
    bands = Analysis(SPEC).bands
    factors = torch.randn(2, 2, 5, SPEC.bands)
    ones = torch.ones(2, 5, SPEC.window_samples // 2 + 1, dtype=torch.complex64)
    whole = torch.complex(factors[:, 0], factors[:, 1]).numpy()
    assert np.allclose(applied(factors, ones, bands).numpy(), bands.spread(whole), atol=1e-6)


def test_it_learns_to_tell_a_tone_from_noise() -> None:
    chance = np.random.default_rng(0)

    def pieces() -> tuple[Floats, Floats]:
        clean = np.stack([tone(chance.uniform(300, 3000), 0.12) for _ in range(4)])
        hiss = np.stack([noise(0.12, int(chance.integers(1 << 30)), 0.1) for _ in range(4)])
        return clean + hiss, clean

    reports: list[Progress] = []
    turns = itertools.count()
    network = train_for(
        small(),
        SPEC,
        pieces,
        60.0,
        rate=1e-2,
        report=lambda progress, average: reports.append(progress),
        report_every=10,
        clock=lambda: float(next(turns)),
    )
    assert [progress.steps for progress in reports] == [10, 20, 30, 40, 50]
    assert reports[-1].loss < reports[0].loss - 0.02
    noisy, clean = pieces()
    batch = batch_of((noisy, clean), SPEC)
    with torch.no_grad():
        factors, *_ = network(batch.features, *network.memories(4))
    estimate = applied(factors, batch.noisy, Analysis(SPEC).bands)
    wanted = overlap_add(batch.clean, SHAPE)
    better = si_sdr(overlap_add(estimate, SHAPE), wanted)
    gain_db = better - si_sdr(overlap_add(batch.noisy, SHAPE), wanted)
    assert float(gain_db.mean()) > 1


def test_noisy_speech_holds_the_speech_and_never_clips() -> None:
    chance = np.random.default_rng(1)
    speech = [tone(200.0, 0.7), tone(300.0, 1.1)]
    for recordings in ([], [noise(0.4)]):
        for _ in range(20):
            noisy, clean = noisy_speech(speech, recordings, chance, 16000)
            assert noisy.shape == clean.shape == (16000,)
            assert noisy.dtype == clean.dtype == np.float32
            assert np.isfinite(noisy).all()
            assert np.abs(noisy).max() <= 1
            assert np.abs(clean).max() > 0
            assert not np.array_equal(noisy, clean)
    once, again = (
        noisy_speech(speech, [], np.random.default_rng(3), 4000)[0].tobytes() for _ in range(2)
    )
    assert once == again


@pytest.mark.parametrize("made_up", MADE_UP)
def test_made_up_noise_is_finite_and_never_silent(made_up) -> None:  # type: ignore[no-untyped-def]
    for seed in range(10):
        found = made_up(np.random.default_rng(seed), 8000)
        assert found.shape == (8000,)
        assert np.isfinite(found).all()
        assert np.abs(found).max() > 0
