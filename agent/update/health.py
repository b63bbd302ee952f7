"""Whether a release on trial has proven itself: pure statistics.

Accuracy is judged by Wald's sequential probability ratio test (A. Wald, "Sequential Tests of
Statistical Hypotheses", Ann. Math. Statist. 16, 1945) between ``p0``, the baseline, and ``p1``,
the baseline less the loss that must be excluded. In 2,000 simulated trials at .95 against .90 (a
test repeats them) it rolled back 0.1 % of the good releases, missed 1.3 % of the bad ones, took
about 300 labels, and 13 for a broken model; a fixed window of 200 frames rolls back half of the
good ones.

The baseline is what the committed release showed on this very stream, because the publisher's
evaluation set is another population. It is taken as the lower end of its one-sided 95 % Wilson
interval, so that a short lucky stretch does not set a bar that no good release can pass; with
many labels the interval closes. With too few labels, the publisher's measurement stands in.
A release *older* than the committed one is an operator's rollback: it need not beat its successor,
so its own measured accuracy bounds its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agent.update import outcomes
from agent.update.ports import ServiceStats
from agent.update.state import ReleaseRecord, ServiceRecord
from edge_sdk.contracts.update import TrialPolicy
from edge_sdk.errors import GateError

LATENCY_WINDOW = 1024
"""Newest latencies kept for the percentile."""
MIN_LATENCIES = 50
JITTER_MS = 10.0
"""A p95 below this is what a busy scheduler does to any model; it says nothing of a release."""
HEADROOM = 0.2
"""Share of the pipeline's objective that stays free; below the rest no frame is late."""
MIN_BASELINE_LABELS = 100
MEMORY_LABELS = 10_000
"""Beyond this many labels in service, old ones fade: counts are halved."""
HIGHEST_BASELINE = 0.995
"""A perfect record must still allow a single mistake."""
LOWEST_ACCURACY = 0.005
SMALLEST_DROP = 0.001
"""Bounds on a policy's wishes, so that a careless one cannot divide by zero."""
SMALLEST_RISK = 1e-6
FLOOR_LABELS = 30
FLOOR_SHARE = 0.5
"""Under this share of the baseline a release is broken, whatever the policy tolerates."""
ONE_SIDED_95 = 1.645
ONE_SIDED_999 = 3.09


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over a worker's reports."""

    frames: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    latencies_ms: tuple[float, ...] = ()

    def plus(self, stats: ServiceStats) -> Counts:
        """With one more report; the oldest latencies are forgotten."""
        return Counts(
            self.frames + stats.frames,
            self.errors + stats.errors,
            self.labelled + stats.labelled,
            self.correct + stats.correct,
            (*self.latencies_ms, *stats.latencies_ms)[-LATENCY_WINDOW:],
        )

    def record(self, before: ServiceRecord = ServiceRecord()) -> ServiceRecord:  # noqa: B008
        """The release's record with these counts added to ``before``."""
        labelled, correct = before.labelled + self.labelled, before.correct + self.correct
        while labelled > MEMORY_LABELS:
            labelled, correct = labelled // 2, correct // 2
        p95 = percentile(self.latencies_ms, 0.95)
        if len(self.latencies_ms) < MIN_LATENCIES:
            p95 = before.p95_ms
        return ServiceRecord(labelled=labelled, correct=correct, p95_ms=p95)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the trial is measured against."""

    accuracy: float
    p95_ms: float
    """0 when not known: latency is not judged then."""
    harmless_ms: float = JITTER_MS
    """A p95 up to this is no reason to go back, whatever it was before."""


@dataclass(frozen=True, slots=True)
class Proven:
    """The good end of a trial; a bad one is a :class:`~edge_sdk.errors.GateError`."""

    detail: str


Verdict: TypeAlias = Proven | GateError


def baseline(
    candidate: ReleaseRecord, serving: ReleaseRecord | None, objective_ms: float = 0.0
) -> Baseline:
    """The bar for ``candidate`` on a device that has been serving ``serving``.

    Args:
        candidate: the release on trial.
        serving: the committed one.
        objective_ms: the pipeline's latency objective; 0 for none.
    """
    if serving is None:
        return Baseline(candidate.accuracy, 0.0)
    service = serving.service
    if service.labelled >= MIN_BASELINE_LABELS:
        accuracy = wilson_lower(service.correct, service.labelled, ONE_SIDED_95)
    else:
        accuracy = serving.accuracy
    if candidate.sequence < serving.sequence:
        accuracy = min(accuracy, candidate.accuracy)
    return Baseline(accuracy, service.p95_ms, harmless_ms(objective_ms))


def harmless_ms(objective_ms: float) -> float:
    """A latency up to this is no reason to go back; an objective of 0 is none."""
    return (1 - HEADROOM) * objective_ms if objective_ms > 0 else JITTER_MS


def judge(policy: TrialPolicy, bar: Baseline, counts: Counts, elapsed_s: float) -> Verdict | None:
    """The verdict so far, or None while the trial goes on.

    Args:
        policy: gates, from the desired state.
        bar: what the release is measured against.
        counts: everything observed in this trial.
        elapsed_s: seconds since the trial began.
    """
    errors = _errors(policy, counts)
    if errors is not None:
        return errors
    slow = _latency(policy, bar, counts)
    if slow is not None:
        return slow
    if counts.labelled:
        accuracy = _accuracy(policy, bar, counts)
        if accuracy is not None:
            return accuracy
    elif counts.frames >= policy.min_frames and _error_rate(counts) <= policy.max_error_rate:
        return Proven(f"{counts.frames} frames without trouble; the stream has no labels.")
    if elapsed_s >= policy.max_seconds:
        detail = f"No verdict after {elapsed_s:.0f} s and {counts.frames} frames."
        return outcomes.unproven(detail)
    return None


def log_likelihood_ratio(p0: float, p1: float, correct: int, wrong: int) -> float:
    """Evidence for accuracy ``p1`` over ``p0``, in nats."""
    return correct * math.log(p1 / p0) + wrong * math.log((1 - p1) / (1 - p0))


def sprt_bounds(false_abort: float, miss: float) -> tuple[float, float]:
    """``(accept, abort)``: at or below the first the release is good, at or above the second bad.

    Wald's approximations; the true error rates are at most slightly above the wanted ones.
    """
    false_abort, miss = (min(max(risk, SMALLEST_RISK), 0.5) for risk in (false_abort, miss))
    return math.log(miss / (1 - false_abort)), math.log((1 - miss) / false_abort)


def wilson_lower(successes: int, trials: int, z: float) -> float:
    """Lower end of the Wilson score interval (E. B. Wilson, JASA 22, 1927)."""
    if trials <= 0:
        return 0.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of ``values`` do not exceed; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _accuracy(policy: TrialPolicy, bar: Baseline, counts: Counts) -> Verdict | None:
    p0 = min(max(bar.accuracy, 2 * LOWEST_ACCURACY), HIGHEST_BASELINE)
    p1 = max(p0 - max(policy.accuracy_drop, SMALLEST_DROP), LOWEST_ACCURACY)
    ratio = log_likelihood_ratio(p0, p1, counts.correct, counts.labelled - counts.correct)
    accept, abort = sprt_bounds(policy.false_abort, policy.miss)
    figures = (
        f"{counts.correct} of {counts.labelled} labelled frames right"
        f" ({counts.correct / counts.labelled:.1%}) against a baseline of {bar.accuracy:.1%}"
    )
    floor = FLOOR_SHARE * bar.accuracy * counts.labelled
    if counts.labelled >= FLOOR_LABELS and counts.correct < floor:
        return outcomes.broken(f"{figures}.")
    if ratio >= abort:
        return outcomes.inaccurate(f"{figures}.")
    if counts.frames < policy.min_frames or _error_rate(counts) > policy.max_error_rate:
        return None
    if ratio <= accept:
        return Proven(f"{figures}.")
    if counts.labelled < policy.max_frames:
        return None
    # The truncated test: the nearer hypothesis, so that a borderline release ends somewhere.
    if ratio < 0:
        return Proven(f"{figures}; close, decided at the frame limit.")
    return outcomes.inaccurate(f"{figures}; close, decided at the frame limit.")


def _errors(policy: TrialPolicy, counts: Counts) -> GateError | None:
    """Abort when the error rate is surely above the limit, not at the first error."""
    attempts = counts.frames + counts.errors
    if wilson_lower(counts.errors, attempts, ONE_SIDED_999) <= policy.max_error_rate:
        return None
    detail = f"{counts.errors} of {attempts} frames failed."
    return outcomes.erroneous(detail)


def _error_rate(counts: Counts) -> float:
    return counts.errors / max(counts.frames + counts.errors, 1)


def _latency(policy: TrialPolicy, bar: Baseline, counts: Counts) -> GateError | None:
    enough = len(counts.latencies_ms) >= MIN_LATENCIES and counts.frames >= policy.min_frames
    if bar.p95_ms <= 0 or not enough:
        return None
    p95 = percentile(counts.latencies_ms, 0.95)
    if p95 <= max(policy.max_latency_ratio * bar.p95_ms, bar.harmless_ms):
        return None
    detail = f"p95 latency {p95:.1f} ms against {bar.p95_ms:.1f} ms before."
    return outcomes.slow(detail)
