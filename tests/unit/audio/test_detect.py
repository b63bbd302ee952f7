"""Words are heard once per utterance, and never twice within the refractory time."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.detect import Detector, Hit, Watch, judge
from edge_sdk.contracts.audio import WakeWord

STEP_S = 0.02
RULES = st.builds(
    WakeWord,
    label=st.just("word"),
    cutoff=st.floats(0.05, 1.0),
    window_steps=st.integers(1, 8),
    refractory_s=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
)
SCORES = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 2.0])),
    max_size=100,
)


def hits_of(rule: WakeWord, scores: list[float]) -> list[Hit]:
    detector = Detector([rule])
    return [hit for i, score in enumerate(scores) for hit in detector.step([score], i * STEP_S)]


def bounded(score: float) -> float:
    return min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0


@settings(max_examples=50, deadline=None)
@given(RULES, SCORES)
def test_every_hit_has_a_full_window_at_the_cutoff(rule: WakeWord, scores: list[float]) -> None:
    for hit in hits_of(rule, scores):
        end = round(hit.at_s / STEP_S) + 1
        window = [bounded(score) for score in scores[:end][-rule.window_steps :]]
        assert len(window) == rule.window_steps
        assert hit.score == math.fsum(window) / len(window) >= rule.cutoff


@settings(max_examples=50, deadline=None)
@given(RULES, SCORES)
def test_hits_keep_the_refractory_time_and_rearm_between(
    rule: WakeWord, scores: list[float]
) -> None:
    hits = hits_of(rule, scores)
    for before, after in itertools.pairwise(hits):
        assert after.at_s - before.at_s >= rule.refractory_s
        first, last = (round(hit.at_s / STEP_S) for hit in (before, after))
        means = [
            math.fsum(map(bounded, scores[i - rule.window_steps + 1 : i + 1])) / rule.window_steps
            for i in range(first + 1, last)
        ]
        assert any(mean < rule.cutoff for mean in means), "the utterance had ended"


@settings(max_examples=50, deadline=None)
@given(RULES, SCORES)
def test_nothing_is_missed_after_calm(rule: WakeWord, scores: list[float]) -> None:
    """The first full window that reaches the cutoff is a hit, whatever came before."""
    calm = [0.0] * (rule.window_steps + math.ceil(rule.refractory_s / STEP_S) + 1)
    said = [*scores, *calm, *[1.0] * rule.window_steps]
    assert any(hit.at_s > (len(scores) + len(calm) - 1) * STEP_S for hit in hits_of(rule, said))


@settings(max_examples=50, deadline=None)
@given(RULES, SCORES, st.floats(0, 0.5))
def test_a_higher_cutoff_never_reaches_more_windows(
    rule: WakeWord, scores: list[float], more: float
) -> None:
    stricter = WakeWord(
        label="word",
        cutoff=min(1.0, rule.cutoff + more),
        window_steps=rule.window_steps,
        refractory_s=rule.refractory_s,
    )
    assert bool(hits_of(stricter, scores)) <= bool(hits_of(rule, scores))


@settings(max_examples=50, deadline=None)
@given(RULES, SCORES)
def test_judging_depends_on_nothing_but_its_arguments(rule: WakeWord, scores: list[float]) -> None:
    watch = Watch()
    for i, score in enumerate(scores):
        once, again = judge(rule, watch, score, i * STEP_S), judge(rule, watch, score, i * STEP_S)
        assert once == again
        watch = once[0]
        assert len(watch.recent) <= rule.window_steps


def test_several_words_are_heard_independently() -> None:
    rules = [
        WakeWord(label="one", output=0, window_steps=1),
        WakeWord(label="two", output=1, window_steps=2),
    ]
    detector = Detector(rules)
    found = [detector.step(scores, i * STEP_S) for i, scores in enumerate([[0.9, 0.9], [0, 0.7]])]
    assert [[hit.label for hit in hits] for hits in found] == [["one"], ["two"]]
    assert found[1][0].score == pytest.approx(0.8)


def test_a_hole_in_the_stream_empties_windows_but_not_refractory_times() -> None:
    detector = Detector([WakeWord(label="w", window_steps=3, refractory_s=1.0)])
    heard = [bool(detector.step([1.0], i * 0.1)) for i in range(3)]
    detector.forget_scores()
    heard += [bool(detector.step([0.0 if i < 4 else 1.0], i * 0.1)) for i in range(3, 13)]
    assert [i for i, hit in enumerate(heard) if hit] == [2], "not again within a second"
