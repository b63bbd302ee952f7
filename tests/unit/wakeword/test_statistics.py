"""Intervals that textbooks print, and the rules of a device."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.wakeword.network import STEP_S
from converters.wakeword.scoring import (
    Point,
    cutoff_within,
    false_accept_curve,
    heard,
    reports,
    window_means,
)
from converters.wakeword.statistics import at_most, poisson_interval, wilson_interval
from edge_sdk.audio.detect import Detector
from edge_sdk.contracts.audio import WakeWord


def test_the_rule_of_three_and_garwoods_table() -> None:
    assert at_most(0) == pytest.approx(-math.log(0.05), rel=1e-6)
    assert poisson_interval(0) == (0.0, pytest.approx(3.689, abs=1e-3))
    assert poisson_interval(1) == (pytest.approx(0.0253, abs=1e-3), pytest.approx(5.572, abs=1e-3))
    assert poisson_interval(10) == (pytest.approx(4.795, abs=2e-3), pytest.approx(18.39, abs=1e-2))
    low, high = poisson_interval(2000)
    assert low == pytest.approx(2000 - 1.96 * math.sqrt(2000), rel=0.01)
    assert high == pytest.approx(2000 + 1.96 * math.sqrt(2000), rel=0.01)


def test_wilsons_interval() -> None:
    assert wilson_interval(0, 10) == (pytest.approx(0, abs=1e-9), pytest.approx(0.2775, abs=1e-4))
    assert wilson_interval(95, 100) == (
        pytest.approx(0.8882, abs=1e-4),
        pytest.approx(0.9785, abs=1e-4),
    )
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(0, 300))
@settings(max_examples=30, deadline=None)
def test_intervals_hold_what_was_seen(count: int) -> None:
    low, high = poisson_interval(count)
    assert low <= count < high
    assert count < at_most(count) < high
    assert wilson_interval(count, 300)[0] <= count / 300 <= wilson_interval(count, 300)[1]


scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), max_size=80)


@given(
    scores, st.integers(1, 6), st.sampled_from([0.31, 0.53, 0.81]), st.sampled_from([0.0, 0.1, 0.5])
)
@settings(max_examples=80, deadline=None)
def test_hours_at_once_are_judged_as_a_device_does(
    given_scores: list[float], window: int, cutoff: float, refractory_s: float
) -> None:
    rule = WakeWord(label="x", cutoff=cutoff, window_steps=window, refractory_s=refractory_s)
    detector = Detector([rule])
    wanted = [
        step for step, score in enumerate(given_scores) if detector.step([score], step * STEP_S)
    ]
    means = window_means(np.array(given_scores), window)
    assert reports(means, cutoff, refractory_s, STEP_S).tolist() == wanted


def test_a_curve_goes_from_none_to_many() -> None:
    chance = np.random.default_rng(0)
    streams = [chance.random(5000) ** 4 for _ in range(2)]
    curve = false_accept_curve(streams, 3, 1.0, STEP_S)
    counts = [point.false_accepts for point in curve]
    assert counts[0] == 0 and counts[-1] > 50
    for budget in (0, 1, 5):
        cutoff = cutoff_within(curve, budget)
        found = sum(len(reports(window_means(s, 3), cutoff, 1.0, STEP_S)) for s in streams)
        assert found <= budget
    assert cutoff_within([Point(1.0, 0), Point(0.5, 3), Point(0.4, 2)], 2) == 1.0
    assert false_accept_curve([], 1, 1.0, STEP_S) == [Point(0.5, 0)]
    assert false_accept_curve([np.zeros(100)], 1, 1.0, STEP_S)[0].false_accepts == 0


@given(st.lists(st.integers(1, 99), min_size=3, max_size=12, unique=True), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_a_curve_measures_at_the_loosest_cutoff_and_chooses_the_strictest(
    peaks: list[int], budget: int
) -> None:
    stream = np.zeros(len(peaks) * 500)
    stream[::500] = np.array(peaks) / 100
    curve = false_accept_curve([stream], 1, 1.0, STEP_S)
    high = sorted(window_means(stream, 1)[::500], reverse=True)
    loosest = [point.cutoff for point in curve if point.false_accepts <= budget][-1]
    assert loosest == np.nextafter(high[budget], 2.0)
    chosen = cutoff_within(curve, budget)
    assert chosen == (high[budget - 1] if budget else np.nextafter(high[0], 2.0))


def test_a_phrase_is_heard_within_its_span_only() -> None:
    found = np.zeros(100)
    found[40:45] = 1.0
    assert heard(found, 2, 0.9, 30, 50) == 41
    assert heard(found, 2, 0.9, 46, 60) is None
    assert heard(found, 8, 0.9, 30, 60) is None
