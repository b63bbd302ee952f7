"""A cutoff rises where a word is heard too often, and comes back when the room is quiet."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.caution import HOUR_S, LEVELS, Caution, Cautions, after_hit, after_time
from edge_sdk.audio.detect import Detector
from edge_sdk.contracts.audio import WakeWord

WORD = WakeWord(label="hey robin", cutoff=0.8, window_steps=1, refractory_s=0.0)
GAPS_S = st.lists(st.floats(0.01, 3 * HOUR_S), max_size=60)


def levels(most: int, gaps_s: list[float]) -> list[tuple[float, int]]:
    """Time and level after every hit, with the time between looked at every ten minutes."""
    caution, at_s, seen = Caution(), 0.0, []
    for gap_s in gaps_s:
        for _ in range(int(gap_s // 600)):
            at_s += 600
            caution = after_time(caution, most, at_s)
            seen.append((at_s, caution.level))
        at_s += gap_s % 600
        caution = after_hit(after_time(caution, most, at_s), most, at_s)
        assert len(caution.heard_s) <= most, "memory is bounded"
        seen.append((at_s, caution.level))
    return seen


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), GAPS_S)
def test_levels_move_one_by_one_and_stay_bounded(most: int, gaps_s: list[float]) -> None:
    before, fell_s = 0, -HOUR_S
    for at_s, level in levels(most, gaps_s):
        assert 0 <= level <= LEVELS
        assert abs(level - before) <= 1
        if level < before:
            assert at_s - fell_s >= HOUR_S, "no faster than a level per hour"
            fell_s = at_s
        before = level


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(0, 100))
def test_words_that_may_be_meant_change_nothing(most: int, hours: int) -> None:
    gaps_s = [HOUR_S / most + 1] * min(hours * most, 60)
    assert all(level == 0 for _, level in levels(most, gaps_s))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), GAPS_S)
def test_it_recovers_within_quiet_hours(most: int, gaps_s: list[float]) -> None:
    assert levels(most, [*gaps_s, (LEVELS + 2) * HOUR_S])[-2][1] == 0


def test_a_television_is_heard_less_and_less() -> None:
    """Scores between the cutoff and certainty, once a minute for a day."""
    cautions = Cautions(most_per_hour=5)
    detector = Detector([WORD], cautions)
    heard_by_hour = []
    for hour in range(24):
        heard = 0
        for minute in range(60):
            at_s = hour * HOUR_S + minute * 60
            for hit in detector.step([0.88 + 0.001 * minute], at_s):
                cautions.heard(hit.label, hit.at_s)
                heard += 1
            detector.step([0.0], at_s + 1)
        heard_by_hour.append(heard)
    # Three levels in the first hour; from then on it must be quiet before anything falls again.
    assert heard_by_hour[0] > 10
    assert max(heard_by_hour[1:]) <= 3 * 6
    assert sum(heard_by_hour[1:]) / 23 <= 6


def test_a_word_said_clearly_passes_at_every_level(caplog: pytest.LogCaptureFixture) -> None:
    cautions = Cautions(most_per_hour=1)
    detector = Detector([WORD], cautions)
    with caplog.at_level(logging.WARNING):
        for second in range(30):
            hits = detector.step([1.0], 2.0 * second)
            assert [hit.label for hit in hits] == ["hey robin"]
            cautions.heard("hey robin", hits[0].at_s)
            detector.step([0.0], 2.0 * second + 1)
    assert len(caplog.messages) == LEVELS, "told once per level"
    assert "more than 1 times in an hour" in caplog.messages[0]


def test_words_do_not_pay_for_each_other_and_zero_means_never() -> None:
    often, never = Cautions(1), Cautions(0)
    for second in range(10):
        often.heard("a", float(second))
        never.heard("a", float(second))
    assert often.rule(WakeWord(label="a"), 10.0).cutoff > 0.5
    assert often.rule(WakeWord(label="b"), 10.0).cutoff == 0.5
    assert never.rule(WakeWord(label="a"), 10.0).cutoff == 0.5
