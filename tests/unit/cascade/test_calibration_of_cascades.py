"""Thresholds are chosen on disagreement, keep the tolerance elsewhere, and are refused else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.cascade.calibrate import (
    LEAST_SAMPLES,
    Pair,
    Terms,
    calibrate,
    cross_validated,
    threshold_for,
)
from edge_sdk.runtime.margins import margins

samples = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1), st.booleans()),
    min_size=1,
    max_size=60,
)


@given(samples, st.floats(0, 1))
def test_the_threshold_keeps_the_aim_and_is_the_lowest_that_does(
    found: list[tuple[float, bool]], aim: float
) -> None:
    sure = np.array([margin for margin, _ in found])
    differs = np.array([flag for _, flag in found])

    def lost(threshold: float) -> float:
        return float(np.mean((sure >= threshold) & differs))

    threshold = threshold_for(sure, differs, aim)
    assert lost(threshold) <= aim + 1e-9
    lower = sure[sure < threshold]
    if len(lower):
        assert lost(lower.max()) > aim


def answers(
    count: int, hard: float, seed: int = 0, sharpness: float = 6.0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Two points of five labels; on a ``hard`` share the first one guesses, and is unsure."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 5, count)
    full = random.normal(0, 1, (count, 5)).astype(np.float32)
    full[np.arange(count), truth] += 12
    first = random.normal(0, 1, (count, 5)).astype(np.float32)
    easy = random.random(count) >= hard
    first[np.flatnonzero(easy), truth[easy]] += sharpness
    return first, full


def test_a_cascade_that_pays_keeps_its_word_on_other_samples() -> None:
    """On average: one set of samples alone can be lucky by its own sampling error."""
    terms = Terms(tolerance=0.02, least_saving=0.25)
    lost, shares, promised = [], [], []
    for seed in range(12):
        verdict = calibrate(Pair(*answers(400, 0.25, seed), first_ms=2.0, full_ms=10.0), terms)
        assert not verdict.refusal and verdict.saving >= 0.25
        assert verdict.mean_ms == pytest.approx(2.0 + verdict.escalated * 10.0)
        first, full = answers(400, 0.25, seed + 100)
        stands = margins(first) >= verdict.threshold
        lost.append(np.mean(stands & (first.argmax(1) != full.argmax(1))))
        shares.append(np.mean(~stands))
        promised.append(verdict.escalated)
    assert np.mean(lost) <= 0.022
    assert np.mean(shares) == pytest.approx(np.mean(promised), abs=0.03)
    carried = verdict.cascade("low")
    assert (carried.first, carried.samples, carried.threshold) == ("low", 400, verdict.threshold)


def test_estimates_come_from_samples_that_did_not_choose() -> None:
    """Margins that say nothing: the optimum on the samples at hand is luck, and is seen to be."""
    random = np.random.default_rng(3)
    sure, differs = random.random(200), random.random(200) < 0.05
    threshold = threshold_for(sure, differs, 0.02)
    at_hand = float(np.mean((sure >= threshold) & differs))
    runs = [cross_validated(sure, differs, 0.02, seed)[1] for seed in range(5)]
    assert at_hand <= 0.02 < 0.02 + 0.001 < max(runs)


@pytest.mark.parametrize(
    ("count", "hard", "costs", "terms", "why"),
    [
        (LEAST_SAMPLES - 1, 0.1, (1.0, 10.0), Terms(), "samples say too little"),
        (400, 0.1, (9.5, 10.0), Terms(), "too little to save"),
        (400, 0.9, (3.0, 10.0), Terms(tolerance=0.01), "looked at again"),
        (400, 0.9, (1.0, 10.0), Terms(tolerance=0.0), "even where it is surest"),
    ],
)
def test_what_does_not_pay_is_refused_with_the_reason(
    count: int, hard: float, costs: tuple[float, float], terms: Terms, why: str
) -> None:
    verdict = calibrate(Pair(*answers(count, hard), *costs), terms)
    assert why in verdict.refusal


def test_a_first_point_that_is_wrong_where_it_is_sure_is_refused() -> None:
    first, full = answers(400, 0.0)
    verdict = calibrate(Pair(np.roll(first, 1, axis=1), full, 1.0, 10.0), Terms(0.01))
    assert verdict.refusal


def test_equal_points_never_escalate() -> None:
    first, _ = answers(200, 0.2)
    verdict = calibrate(Pair(first, first, 1.0, 4.0))
    assert (verdict.refusal, verdict.disagreement) == ("", 0.0)
    assert verdict.escalated < 0.02 and verdict.saving > 0.7
