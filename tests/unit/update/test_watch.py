"""The cumulative sums after a commit: no false alarms, and how soon a change is found."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.update.ports import ServiceStats
from agent.update.probation import Alarm, Level, Probation
from agent.update.watch import (
    CAP,
    LEARN_FRAMES,
    MIN_SAMPLES,
    SAMPLE_S,
    THRESHOLD,
    Watch,
    grown,
    rate_nats,
    shift_nats,
)
from edge_sdk.contracts.update import TrialPolicy

FRAMES = 40
POLICY = TrialPolicy()
Sample = Callable[[random.Random], ServiceStats]


def frames(
    source: random.Random,
    *,
    ms: float = 20.0,
    spread: float = 0.2,
    errors: float = 0.0,
    accuracy: float = 0.95,
    where: str = "camera/0",
    objective_ms: float = 0.0,
) -> ServiceStats:
    """A sample's worth of service."""
    failed = sum(source.random() < errors for _ in range(FRAMES))
    done = FRAMES - failed
    correct = sum(source.random() < accuracy for _ in range(done))
    latencies = tuple(ms * math.exp(source.gauss(0, spread)) for _ in range(done))
    late = sum(latency > objective_ms for latency in latencies) if objective_ms else 0
    timed = done if objective_ms else 0
    return ServiceStats(done, failed, done, correct, latencies, timed, late, where)


def on_trial(seed: int = 1, objective_ms: float = 0.0, **how: float) -> Probation:
    """What a trial of 200 frames leaves."""
    source, found = random.Random(seed), Probation.under(POLICY, objective_ms)
    for _ in range(5):
        found = found.plus(frames(source, objective_ms=objective_ms, **how))  # type: ignore[arg-type]
    return found


def first_alarm(
    watch: Watch, sample: Sample, samples: int, seed: int = 2, began_s: float = 0.0
) -> tuple[int, Alarm]:
    """After how many samples there is an alarm, and which."""
    source = random.Random(seed)
    for number in range(samples + 1):  # the first report only begins a sample
        alarm = watch.add(sample(source), began_s + number * SAMPLE_S)
        if alarm is not None:
            return number, alarm
    return samples + 1, Alarm("errors", "", 0.0, 0.0)


# --- the sum itself ---


def run_length(threshold: float, nats: Callable[[], float], most: int) -> int:
    total = 0.0
    for number in range(1, most + 1):
        total = max(0.0, total + nats())
        if total >= threshold:
            return number
    return most


def test_the_mean_time_to_a_false_alarm_is_what_the_threshold_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At a threshold small enough to wait for; Lorden's bound is exp(threshold)."""
    source, threshold, runs = random.Random(3), math.log(100), 300

    def level() -> float:
        return shift_nats(source.gauss(0, 1), 1.0)

    def rate() -> float:
        return rate_nats(0.05, 0.15, sum(source.random() < 0.05 for _ in range(20)), 20)

    lengths = {
        name: sum(run_length(threshold, nats, 20_000) for _ in range(runs)) / runs
        for name, nats in {"level": level, "rate": rate}.items()
    }
    with capsys.disabled():
        for name, mean in lengths.items():
            print(f"\n  run length at ln(100), {name}: {mean:.0f} samples", end="")
    assert min(lengths.values()) > 100


@given(st.floats(0.001, 0.9), st.floats(0.0, 1.0), st.floats(0.001, 0.5), st.integers(1, 30))
def test_no_share_up_to_the_usual_one_lets_a_sum_grow_in_the_mean(
    usual: float, part: float, more: float, of: int
) -> None:
    """The likelihood ratio's mean is at most 1, which is what Lorden's bound rests on."""
    true = usual * part
    mean = sum(
        math.comb(of, bad)
        * true**bad
        * (1 - true) ** (of - bad)
        * math.exp(rate_nats(usual, usual + more, bad, of))
        for bad in range(of + 1)
    )
    assert mean <= 1 + 1e-6


@given(st.lists(st.floats(-50, 50), max_size=100))
def test_no_sample_counts_for_more_than_its_share(nats: list[float]) -> None:
    total, samples = 0.0, 0
    for value in nats:
        before, total = total, grown(total, value)
        samples = samples + 1 if total else 0
        assert 0 <= total <= before + CAP + 1e-9
        if total >= THRESHOLD - 1e-9:
            assert samples >= MIN_SAMPLES


@given(st.floats(1.0, 20.0), st.floats(0.0, 10.0))
def test_a_shift_of_so_many_sigmas_is_found_in_a_bounded_number_of_samples(
    shift: float, beyond: float
) -> None:
    total, samples = 0.0, 0
    while total < THRESHOLD:
        total, samples = grown(total, shift_nats(shift + beyond, shift)), samples + 1
        assert samples <= 33
    assert samples >= MIN_SAMPLES
    assert samples <= max(MIN_SAMPLES, math.ceil(2 * THRESHOLD / shift**2)) + 1


# --- the whole watch ---


@given(st.integers(0, 10_000), st.floats(1.0, 200.0), st.floats(0.0, 0.6), st.floats(0, 0.01))
@settings(max_examples=12, deadline=None)
def test_a_release_that_stays_as_it_was_is_left_alone(
    seed: int, ms: float, spread: float, errors: float
) -> None:
    how = {"ms": ms, "spread": spread, "errors": errors, "objective_ms": 2 * ms}
    watch = Watch(on_trial(seed, **how), 2 * ms)
    number, alarm = first_alarm(watch, lambda source: frames(source, **how), 240, seed + 1)  # type: ignore[arg-type]
    assert number > 240, alarm


@pytest.mark.parametrize(
    ("kind", "how", "most"),
    [
        ("latency", {"ms": 80.0}, MIN_SAMPLES),
        ("late", {"ms": 45.0}, MIN_SAMPLES),
        ("errors", {"errors": 1.0}, MIN_SAMPLES),
        ("errors", {"errors": 0.15}, 33),
        ("accuracy", {"accuracy": 0.80}, 33),
    ],
)
def test_a_change_is_found_and_named(kind: str, how: dict[str, float], most: int) -> None:
    how = {**how, "objective_ms": 40.0}
    for seed in range(8):
        watch = Watch(on_trial(seed, objective_ms=40.0), 40.0)
        for number in range(100):
            assert watch.add(frames(random.Random(number)), number * SAMPLE_S) is None
        began = 100 * SAMPLE_S
        for number in range(most + 1):
            alarm = watch.add(frames(random.Random(number), **how), began + number * SAMPLE_S)  # type: ignore[arg-type]
            if alarm is not None:
                break
        assert alarm is not None and alarm.kind == kind, (seed, alarm)
        assert "on trial" in alarm.detail


def test_a_point_that_the_trial_did_not_visit_is_learned_first() -> None:
    watch = Watch(on_trial())
    slower = {"ms": 90.0, "where": "camera/1"}
    number, _ = first_alarm(watch, lambda source: frames(source, **slower), 100)  # type: ignore[arg-type]
    assert number > 100, "a better point takes longer"
    much = {"ms": 400.0, "where": "camera/1"}
    number, alarm = first_alarm(watch, lambda source: frames(source, **much), 20, began_s=9000.0)  # type: ignore[arg-type]
    assert (number, alarm.kind) == (MIN_SAMPLES - 1, "latency")
    assert LEARN_FRAMES < 100 * FRAMES


def test_while_something_else_slows_everything_no_latency_counts() -> None:
    watch = Watch(on_trial())
    for number in range(100):
        slow = frames(random.Random(number), ms=90.0)
        assert watch.add(slow, number * SAMPLE_S, disturbed=True) is None


def test_busy_minutes_condemn_nothing_however_often_they_come() -> None:
    watch, source = Watch(on_trial(objective_ms=40.0), 40.0), random.Random(5)
    for number in range(400):
        busy = number % MIN_SAMPLES != 0  # all but one of ten samples
        sample = frames(source, ms=200.0 if busy else 20.0)
        assert watch.add(sample, number * SAMPLE_S) is None, number


def test_what_is_faster_than_a_scheduler_is_exact_is_not_slow() -> None:
    watch = Watch(on_trial(ms=0.5))
    number, _ = first_alarm(watch, lambda source: frames(source, ms=4.0), 100)
    assert number > 100
    number, alarm = first_alarm(watch, lambda source: frames(source, ms=14.0), 20, began_s=9000.0)
    assert alarm.kind == "latency"


def test_of_another_objective_the_trial_says_nothing() -> None:
    watch = Watch(on_trial(objective_ms=40.0), 15.0)
    late = {"objective_ms": 15.0}
    number, _ = first_alarm(watch, lambda source: frames(source, **late), 100)  # type: ignore[arg-type]
    assert number > 100


def test_without_frames_nothing_is_said() -> None:
    watch = Watch(on_trial())
    for number in range(100):
        assert watch.add(ServiceStats(), number * SAMPLE_S) is None


@given(st.lists(st.lists(st.floats(0.01, 1e4), max_size=20), min_size=1, max_size=8))
def test_a_level_does_not_depend_on_how_it_was_reported(parts: list[list[float]]) -> None:
    by_parts = Level()
    for part in parts:
        by_parts = by_parts.plus(part)
    whole = Level().plus([value for part in parts for value in part])
    assert by_parts.frames == whole.frames
    assert math.isclose(by_parts.mean, whole.mean, abs_tol=1e-6)
    assert math.isclose(by_parts.spread, whole.spread, abs_tol=1e-5)
