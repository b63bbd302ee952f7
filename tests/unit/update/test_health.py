"""Trial statistics: verdicts, and their error rates by simulation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.update.health import (
    Baseline,
    Counts,
    Proven,
    Verdict,
    baseline,
    judge,
    percentile,
    sprt_bounds,
    wilson_lower,
)
from agent.update.ports import ServiceStats
from agent.update.state import ReleaseRecord, ServiceRecord
from edge_sdk.contracts.update import TrialPolicy
from edge_sdk.errors import GateError

POLICY = TrialPolicy(min_frames=1, max_frames=5000, accuracy_drop=0.05)
BATCH = 5


def trial(accuracy: float, bar: float, policy: TrialPolicy, seed: int) -> tuple[Verdict, int]:
    """A trial on a simulated stream; the verdict and the labels it took."""
    source, counts = random.Random(seed), Counts()
    for _ in range(policy.max_frames):
        correct = sum(source.random() < accuracy for _ in range(BATCH))
        counts = counts.plus(ServiceStats(frames=BATCH, labelled=BATCH, correct=correct))
        verdict = judge(policy, Baseline(bar, 0.0), counts, 0.0)
        if verdict is not None:
            return verdict, counts.labelled
    raise AssertionError("no verdict")


def rates(accuracy: float, runs: int) -> tuple[float, float]:
    """Share of good verdicts, and the mean number of labels."""
    results = [trial(accuracy, 0.95, POLICY, seed) for seed in range(runs)]
    good = sum(isinstance(verdict, Proven) for verdict, _ in results)
    return good / runs, sum(labels for _, labels in results) / runs


def test_good_releases_are_hardly_ever_rolled_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Design: 0.2 %. At 2,000 runs 12 or more would have a probability under 0.1 %."""
    passed, labels = rates(0.95, 2000)
    with capsys.disabled():
        print(f"\n  trial at .95/.90: {1 - passed:.2%} false alarms, {labels:.0f} labels", end="")
    assert passed >= 1 - 12 / 2000
    assert labels < 600


def test_a_five_point_loss_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Design: 1 % missed. At 2,000 runs 36 or more would have a probability under 0.1 %."""
    passed, labels = rates(0.90, 2000)
    with capsys.disabled():
        print(
            f"\n  trial at .95/.90: {1 - passed:.2%} of losses found, {labels:.0f} labels", end=""
        )
    assert passed <= 36 / 2000
    assert 100 < labels < 600


def test_a_broken_release_is_found_within_a_few_labels() -> None:
    passed, labels = rates(0.10, 300)
    assert passed == 0
    assert labels <= 20


def test_a_borderline_release_gets_a_verdict_too() -> None:
    policy = TrialPolicy(min_frames=1, max_frames=300)
    results = [trial(0.925, 0.95, policy, seed) for seed in range(200)]
    assert max(labels for _, labels in results) <= 300 + BATCH


def judged(policy: TrialPolicy, counts: Counts, elapsed_s: float = 0.0, p95_ms: float = 0.0) -> str:
    verdict = judge(policy, Baseline(0.95, p95_ms), counts, elapsed_s)
    if verdict is None:
        return "goes on"
    return verdict.code if isinstance(verdict, GateError) else "proven"


def test_verdicts() -> None:
    policy = TrialPolicy(min_frames=100, max_seconds=60.0)
    perfect = Counts(frames=99, labelled=99, correct=99)
    assert judged(policy, perfect) == "goes on"  # too few frames, however good
    assert judged(policy, Counts(frames=150, labelled=150, correct=149)) == "proven"
    assert judged(policy, Counts(frames=40, labelled=40, correct=10)) == "gate.accuracy-floor"
    assert judged(policy, Counts(frames=29, labelled=29, correct=17)) == "gate.accuracy"
    assert judged(policy, Counts(frames=100)) == "proven"  # no labels, no trouble
    assert judged(policy, Counts(frames=99)) == "goes on"
    assert judged(policy, Counts(frames=99), elapsed_s=61.0) == "gate.unproven"
    assert judged(policy, Counts(frames=100, errors=1)) == "proven"
    assert judged(policy, Counts(frames=100, errors=4)) == "goes on"  # neither clean nor surely bad
    assert judged(policy, Counts(frames=100, errors=20)) == "gate.error-rate"
    slow = Counts(frames=100, latencies_ms=(31.0,) * 100)
    assert judged(policy, slow, p95_ms=10.0) == "gate.latency"
    assert judged(policy, slow, p95_ms=11.0) == "proven"
    assert judged(policy, slow) == "proven"  # nothing to compare with


def test_a_busy_machine_does_not_condemn_a_fast_release() -> None:
    policy = TrialPolicy(min_frames=100)
    serving = release(0.95, 1, ServiceRecord(labelled=0, correct=0, p95_ms=0.8))
    candidate = release(0.95, 2, ServiceRecord())

    def at(latency_ms: float, objective_ms: float) -> str:
        counts = Counts(frames=100, latencies_ms=(latency_ms,) * 100)
        verdict = judge(policy, baseline(candidate, serving, objective_ms), counts, 0.0)
        return verdict.code if isinstance(verdict, GateError) else "proven"

    assert at(3.3, objective_ms=0.0) == "proven"
    assert at(11.0, objective_ms=0.0) == "gate.latency"
    assert at(31.0, objective_ms=40.0) == "proven"
    assert at(33.0, objective_ms=40.0) == "gate.latency"
    assert at(3.3, objective_ms=4.0) == "gate.latency"


def test_a_few_slow_frames_are_no_slow_release() -> None:
    counts = Counts(frames=100, latencies_ms=(5.0,) * 96 + (500.0,) * 4)
    assert judged(TrialPolicy(), counts, p95_ms=5.0) == "proven"


def release(accuracy: float, sequence: int, service: ServiceRecord) -> ReleaseRecord:
    return ReleaseRecord(
        digest="",
        payload_digest="",
        release="digits",
        version=str(sequence),
        sequence=sequence,
        accuracy=accuracy,
        blobs=(),
        service=service,
    )


def test_the_bar_is_what_the_stream_has_shown() -> None:
    unknown = ServiceRecord()
    candidate = release(0.97, 2, unknown)
    assert baseline(candidate, None).accuracy == 0.97
    assert baseline(candidate, release(0.93, 1, unknown)).accuracy == 0.93
    measured = ServiceRecord(labelled=1000, correct=880, p95_ms=7.0)
    bar = baseline(candidate, release(0.93, 1, measured))
    assert 0.86 < bar.accuracy < 0.88
    assert bar.p95_ms == 7.0


def test_a_short_lucky_stretch_sets_no_impossible_bar() -> None:
    """A release that got 100 of 100 right must not keep out one that is right 97 % of the time."""
    lucky = release(0.97, 1, ServiceRecord(labelled=100, correct=100))
    bar = baseline(release(0.97, 2, ServiceRecord()), lucky)
    assert bar.accuracy < 0.98
    good = sum(
        isinstance(trial(0.97, bar.accuracy, POLICY, seed)[0], Proven) for seed in range(300)
    )
    assert good >= 290


def test_an_older_release_need_not_beat_its_successor() -> None:
    measured = ServiceRecord(labelled=1000, correct=970)
    assert baseline(release(0.8, 1, measured), release(0.97, 2, measured)).accuracy == 0.8


def test_old_labels_fade() -> None:
    record = ServiceRecord()
    for _ in range(30):
        record = Counts(frames=1000, labelled=1000, correct=990).record(record)
    for _ in range(10):
        record = Counts(frames=1000, labelled=1000, correct=500).record(record)
    assert record.labelled <= 10_000
    assert record.correct / record.labelled < 0.65


@given(
    st.builds(
        TrialPolicy,
        min_frames=st.integers(-5, 10**6),
        max_frames=st.integers(-5, 10**6),
        max_seconds=st.floats(-1, 1e9),
        accuracy_drop=st.floats(-2, 2),
        false_abort=st.floats(-1, 2),
        miss=st.floats(-1, 2),
        max_error_rate=st.floats(-1, 2),
        max_latency_ratio=st.floats(-1, 10),
    ),
    st.floats(0, 1),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 1),
)
def test_no_policy_breaks_the_judge(
    policy: TrialPolicy, bar: float, frames: int, errors: int, share: float
) -> None:
    counts = Counts(frames=frames, errors=errors, labelled=frames, correct=int(frames * share))
    verdict = judge(policy, Baseline(bar, 1.0), counts, 1e10)
    assert verdict is not None, "time is up"


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_wilson_lies_below_the_share(successes: int, more: int) -> None:
    trials = successes + more
    assert 0.0 <= wilson_lower(successes, trials, 1.645) <= successes / trials + 1e-12


def test_wilson_against_a_published_value() -> None:
    """Wilson 95 % interval for 81 of 263 is .2553 to .3662 (Newcombe, Stat. Med. 17, 1998)."""
    assert wilson_lower(81, 263, 1.959964) == pytest.approx(0.2553, abs=5e-5)


def test_bounds_follow_wald() -> None:
    accept, abort = sprt_bounds(0.002, 0.01)
    assert accept == pytest.approx(-4.603, abs=1e-3)
    assert abort == pytest.approx(6.205, abs=1e-3)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_percentile_is_a_member_with_enough_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
