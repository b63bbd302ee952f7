"""Trials, claims and reports."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.wakeword.ears import BANDS
from converters.wakeword.evaluate import Rule, Trial, choose_rule, false_accepts, recalls, run_trial
from converters.wakeword.report import (
    Evaluation,
    claim,
    make_evaluation,
    page,
    recall_at,
    write_evaluation,
)
from converters.wakeword.trial import CONDITIONS, Spoken, hours_of, speech_span, spoken_under
from edge_sdk.audio.samples import Floats

QUIET = np.zeros((100, 40), np.float16)


def trial(mistakes: int = 3, hours: float = 2.0) -> Trial:
    """Phrases that score 0.9 or 0.6 at their end; noise with a few high scores."""
    spoken = {}
    for condition, strong in (("clean", 9), ("0 dB", 5)):
        many = []
        for number in range(10):
            scores = np.zeros(100, np.float32)
            scores[50:60] = 0.9 if number < strong else 0.6
            many.append((Spoken(QUIET, 0.6, 1.0), scores))
        spoken[condition] = many
    stream = np.zeros(round(hours * 3600 / 0.02), np.float32)
    for number in range(mistakes):
        stream[10000 * (number + 1) : 10000 * (number + 1) + 12] = 0.7
    near = [np.zeros(100, np.float32), np.full(100, 0.85, np.float32)]
    return Trial(spoken, {"noise": (hours, [stream])}, 0.02, near)


def evaluation(tested_on: Trial, remarks: tuple[str, ...] = ()) -> Evaluation:
    return make_evaluation(
        phrase="hey robin",
        sounds="heɪ",
        rule=Rule(0.8, 3),
        budget_per_hour=0.5,
        chosen_on=trial(),
        tested_on=tested_on,
        positives="recordings",
        by_chance=0.01,
        voices=7,
        remarks=remarks,
    )


def test_the_rule_keeps_the_budget_and_hears_most() -> None:
    strict = choose_rule(trial(), budget_per_hour=0.5)  # 1 of the 3 mistakes
    assert 0.69 < strict.cutoff <= 0.9 and strict.window_steps == 1
    assert [r.heard for r in recalls(trial(), strict)] == [9, 5]
    loose = choose_rule(trial(), budget_per_hour=1.5)
    assert loose.cutoff <= 0.6 or false_accepts(trial(), loose).count <= 3
    assert sum(r.heard for r in recalls(trial(), loose)) >= 14


@pytest.mark.parametrize(("weak", "window"), [(0, 1), (1, 1), (2, 2), (200, 2)])
def test_a_longer_window_must_hear_a_point_more(weak: int, window: int) -> None:
    spoken = []
    for number in range(200):
        scores = np.zeros(100, np.float32)
        scores[50:60] = 0.65 if number < weak else 0.9
        spoken.append((Spoken(QUIET, 0.6, 1.0), scores))
    stream = np.zeros(3 * 3600 * 50, np.float32)
    stream[10000:500000:10000] = 0.7  # of a single step: two of them have half the mean
    found = choose_rule(Trial({"clean": spoken}, {"clicks": (3.0, [stream])}, 0.02), 0.5)
    assert found.window_steps == window


def test_a_longer_window_is_not_taken_if_it_answers_too_late() -> None:
    """Scores that stay: of three such steps all must be high, and the last is late."""
    spoken = []
    for _ in range(100):
        scores = np.zeros(100, np.float32)
        scores[10:15] = 0.5, 0.85, 0.95, 0.95, 0.95
        spoken.append((Spoken(QUIET, 0.5, 0.8), scores))
    stream = np.zeros(round(3 * 3600 / 0.08), np.float32)
    stream[1000:120000:1000] = 0.99  # single steps: the longer the window, the less they weigh
    found = Trial({"clean": spoken}, {"clicks": (3.0, [stream])}, 0.08)
    late = choose_rule(found, 0.5, prompt_ms=float("inf"))
    assert late.window_steps == 2 and recalls(found, late)[0].recall == 1.0
    [row] = recalls(found, late)
    assert choose_rule(found, 0.5, prompt_ms=row.latency_ms[1]) == late
    assert choose_rule(found, 0.5, prompt_ms=row.latency_ms[1] - 1.0).window_steps == 1


def test_recall_tells_condition_interval_and_latency() -> None:
    clean, noisy = recalls(trial(), Rule(0.8, 3))
    assert (clean.condition, clean.heard, clean.recordings) == ("clean", 9, 10)
    assert clean.recall == 0.9 and clean.interval[0] < 0.9 < clean.interval[1]
    assert clean.latency_ms == (pytest.approx(60.0), pytest.approx(60.0))
    assert noisy.heard == 5


def test_hours_limit_what_may_be_claimed() -> None:
    none = false_accepts(trial(0), Rule(0.65, 3))
    assert none.count == 0 and none.at_most_per_hour == pytest.approx(1.498, abs=1e-3)
    assert "not of the budget of 0.5: that takes 6.0 hours" in claim(none, 0.5)
    plenty = false_accepts(trial(0, hours=8.0), Rule(0.65, 3))
    assert "within the budget of 0.5" in claim(plenty, 0.5)
    some = false_accepts(trial(3), Rule(0.65, 3))
    assert some.count == 3 and some.kinds[0].false_accepts == 3
    assert "3 in 2.00 hours: 1.50 per hour (0.31 to 4.38" in claim(some, 0.5)


def test_a_report_says_everything_and_reads_back(tmp_path: Path) -> None:
    found = evaluation(trial(), ("Mind the gap.",))
    write_evaluation(tmp_path, found)
    again = msgspec.json.decode((tmp_path / "evaluation.json").read_bytes(), type=Evaluation)
    assert again == found
    assert json.loads((tmp_path / "evaluation.json").read_text())["phrase"] == "hey robin"
    text = (tmp_path / "evaluation.md").read_text()
    assert text == page(found)
    for part in (
        "| clean | 9 of 10 | 90.0 |",
        "| noise | 2.00 |",
        "Mind the gap",
        "at most 0.1",
        "2 synthesised near misses, a sound or two away, 1",
    ):
        assert part in text
    assert "Of 2 synthesised near misses, a sound or two away, 1 were taken" in text
    assert (tmp_path / "det.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("few", "hours", "named"), [(3, 0.5, True), (1, 0.5, False), (3, 2.0, False), (2, 0.5, False)]
)
def test_a_small_folder_that_decides_the_cutoff_is_named(
    few: int, hours: float, named: bool
) -> None:
    def stream(mistakes: int, hours: float) -> tuple[float, list[Floats]]:
        scores = np.zeros(round(hours * 3600 / 0.02), np.float32)
        scores[1000 : 1000 * (mistakes + 1) : 1000] = 0.95
        return hours, [scores]

    silent = {"talk": stream(2, 4.0), "drill": stream(few, hours)}
    found = evaluation(trial())
    chosen = false_accepts(Trial({}, silent, 0.02), Rule(0.9, 1))
    text = page(msgspec.structs.replace(found, chosen_on=chosen))
    assert (f"{few} of these {few + 2} are in drill, {hours:.2f} hours" in text) == named


def test_the_det_curve_trades_misses_for_mistakes() -> None:
    det = evaluation(trial()).det
    rates = [point.false_accepts_per_hour for point in det]
    assert rates[0] == 0
    strict, loose = recall_at(det, 0.0), recall_at(det, 2.0)
    assert strict is not None and loose is not None
    assert strict.recall["clean"] == 0.9
    assert loose.recall["clean"] >= strict.recall["clean"]
    assert recall_at((), 1.0) is None


def test_conditions_are_the_same_phrase_elsewhere() -> None:
    chance = np.random.default_rng(0)
    speech = (chance.standard_normal(6000) * 0.2).astype("f4")
    silence = np.zeros(1600, "f4")
    recording = np.concatenate([silence, speech, silence])
    first, last = speech_span(recording)
    assert first == pytest.approx(1600, abs=160) and last == pytest.approx(7600, abs=160)
    found = {c: spoken_under(c, [recording], [], BANDS, seed=1)[0] for c in CONDITIONS}
    assert len({one.end_s for one in found.values()}) == 1
    assert found["clean"].end_s == pytest.approx(2.0 + 7600 / 16000, abs=0.02)
    shapes = {one.features.shape for one in found.values()}
    assert len(shapes) == 1
    assert not np.array_equal(found["clean"].features, found["0 dB"].features)
    again = spoken_under("far field", [recording], [], BANDS, seed=1)[0]
    assert np.array_equal(again.features, found["far field"].features)


def test_a_trial_hears_everything_once() -> None:
    heard: list[int] = []

    def scorer(stream: np.ndarray) -> np.ndarray:
        heard.append(len(stream))
        return np.zeros(len(stream) // 2, np.float32)

    streams = (np.zeros((360, 40), np.float16), np.zeros((720, 40), np.float16))
    hours = hours_of("room", streams, BANDS)
    found = run_trial(scorer, {"clean": [Spoken(QUIET, 0.0, 0.2)]}, [hours], BANDS.step_s)
    assert heard == [100, 360, 720]
    assert found.hours == pytest.approx(10.8 / 3600)
    assert choose_rule(found, 1.0).cutoff > 0
