"""Whether a committed release still does what it did on trial: pure statistics.

Page's cumulative sum (E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954), one for
each thing that is watched. Every half minute gives one sample, and the sum grows by the logarithm
of how much likelier it is under "so much worse that it is worth going back" than under "as on
trial"; it never falls below zero. At :data:`THRESHOLD` there is an alarm.

As long as a release does no worse than on trial, the mean time to a false alarm is at least
``exp(THRESHOLD)`` samples (G. Lorden, "Procedures for Reacting to a Change in Distribution", Ann.
Math. Statist. 42, 1971), which is ten years, if samples are independent. They are not quite: a busy
minute spoils all of its frames. So what one sample may add is capped, which can only lengthen that
time, and an alarm takes at least :data:`MIN_SAMPLES` of them; and the latency of a sample is its
median, held to the spread of a single frame, as if all of its frames were one.

``tests/unit/update/test_watch.py`` measures the run lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

from agent.update.health import ONE_SIDED_95, harmless_ms, percentile, wilson_lower
from agent.update.ports import ServiceStats
from agent.update.probation import FASTEST_MS, Alarm, Kind, Level, Probation

SAMPLE_S = 30.0
MIN_FRAMES = 20
"""A sample is not complete with fewer."""
MIN_SAMPLES = 10
"""An alarm needs the evidence of so many, however bad they are."""
YEARS = 10.0
THRESHOLD = math.log(YEARS * 365 * 86_400 / SAMPLE_S)
"""16.2 nats."""
CAP = THRESHOLD / MIN_SAMPLES
MAX_LATENCIES = 4096
"""Of one sample; later ones are not looked at."""
LEARN_FRAMES = 300
"""An operating point that the trial did not visit is measured over so many first."""
LEAST_SPREAD = 0.1
"""A level that was measured in seconds says little of a day: 10 % more is no news."""
LEAST_ERRORS = 0.01
"""A trial without errors does not promise that there are none."""
LEAST_LATE = 0.05
LATE_MORE = 0.25
"""So many more late frames are worth going back for."""
MOST = 0.999


@dataclass(slots=True)
class _Sample:
    began_s: float
    frames: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    timed: int = 0
    late: int = 0
    disturbed: bool = False
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, stats: ServiceStats, disturbed: bool) -> None:
        self.frames += stats.frames
        self.errors += stats.errors
        self.labelled += stats.labelled
        self.correct += stats.correct
        self.timed += stats.timed
        self.late += stats.late
        self.disturbed |= disturbed
        room = MAX_LATENCIES - sum(map(len, self.latencies_ms.values()))
        if room > 0:
            here = self.latencies_ms.setdefault(stats.where, [])
            here.extend(stats.latencies_ms[:room])

    def complete(self, now_s: float) -> bool:
        return now_s - self.began_s >= SAMPLE_S and self.frames + self.errors >= MIN_FRAMES

    @property
    def all_ms(self) -> list[float]:
        return [value for values in self.latencies_ms.values() for value in values]


@dataclass(slots=True)
class _Chart:
    """A cumulative sum, and the counts since it was last zero."""

    total: float = 0.0
    bad: int = 0
    of: int = 0

    def add(self, nats: float, bad: int = 0, of: int = 0) -> bool:
        """Take in a sample; whether there is an alarm."""
        self.total = grown(self.total, nats)
        if not self.total:
            self.bad = self.of = 0
            return False
        self.bad, self.of = self.bad + bad, self.of + of
        return self.total >= THRESHOLD


class Watch:
    """Looks after one release. The caller says what time it is.

    Args:
        before: what it showed on trial.
        objective_ms: the strictest latency objective of the pipelines now; 0 for none.
    """

    def __init__(self, before: Probation, objective_ms: float = 0.0) -> None:
        self._before, self._objective_ms = before, objective_ms
        self._levels = dict(before.levels)
        self._charts: dict[str, _Chart] = {}
        self._sample: _Sample | None = None

    def add(self, stats: ServiceStats, now_s: float, *, disturbed: bool = False) -> Alarm | None:
        """One more report.

        Args:
            stats: what was done since the last one.
            now_s: monotonic.
            disturbed: heat or other programs slow the processor down, whichever release runs.
        """
        if self._sample is None:
            self._sample = _Sample(now_s)
        self._sample.add(stats, disturbed)
        if not self._sample.complete(now_s):
            return None
        sample, self._sample = self._sample, _Sample(now_s)
        alarm = self._errors(sample) or self._accuracy(sample)
        if not sample.disturbed:
            alarm = alarm or self._latency(sample) or self._late(sample)
        if alarm is not None:
            self._charts.clear()
        return alarm

    def _errors(self, sample: _Sample) -> Alarm | None:
        before = self._before
        attempts = before.frames + before.errors
        usual = max(_most(before.errors, attempts), LEAST_ERRORS)
        worse = usual + max(before.max_error_rate, LEAST_ERRORS)
        of = sample.frames + sample.errors
        chart = self._chart("errors")
        if not chart.add(rate_nats(usual, worse, sample.errors, of), sample.errors, of):
            return None
        was = f"{before.errors} of {attempts} on trial"
        return _alarm("errors", f"{chart.bad} of {chart.of} frames failed, {was}.", sample)

    def _accuracy(self, sample: _Sample) -> Alarm | None:
        before = self._before
        if not (before.labelled and sample.labelled):
            return None
        usual = max(_most(before.labelled - before.correct, before.labelled), LEAST_ERRORS)
        wrong, of = sample.labelled - sample.correct, sample.labelled
        chart = self._chart("accuracy")
        if not chart.add(rate_nats(usual, usual + before.accuracy_drop, wrong, of), wrong, of):
            return None
        right = chart.of - chart.bad
        was = f"{before.correct} of {before.labelled} on trial"
        detail = f"{right} of {chart.of} labelled frames right, {was}."
        return _alarm("accuracy", detail, sample, right / chart.of)

    def _late(self, sample: _Sample) -> Alarm | None:
        before, bad, of = self._before, sample.late, sample.timed
        if not (of and before.timed) or self._objective_ms != before.objective_ms:
            return None  # of another objective the trial says nothing
        usual = max(_most(before.late, before.timed), LEAST_LATE)
        chart = self._chart("late")
        if not chart.add(rate_nats(usual, usual + LATE_MORE, bad, of), bad, of):
            return None
        was = f"{before.late} of {before.timed} on trial"
        detail = f"{chart.bad} of {chart.of} frames were late, {was}."
        return _alarm("late", detail, sample)

    def _latency(self, sample: _Sample) -> Alarm | None:
        for where, values in sample.latencies_ms.items():
            level = self._levels.get(where, Level())
            if len(values) < MIN_FRAMES or not self._known(where, level, values):
                continue
            now_ms = median(values)
            if self._chart(f"latency {where}").add(self._latency_nats(level, now_ms)):
                was_ms = math.exp(level.mean)
                detail = f"A frame takes {now_ms:.1f} ms, {was_ms:.1f} ms on trial."
                return _alarm("latency", detail, sample)
        return None

    def _known(self, where: str, level: Level, values: list[float]) -> bool:
        """Whether the level is; what the trial did not visit is learned first."""
        if where in self._before.levels or level.frames >= LEARN_FRAMES:
            return True
        self._levels[where] = level.plus(values)
        return False

    def _latency_nats(self, level: Level, now_ms: float) -> float:
        """Evidence for a level that a trial would not have let pass: below it there is none."""
        spread = max(level.spread, LEAST_SPREAD)
        ratio = math.log(max(self._before.max_latency_ratio, 1.0))
        passed = max(ratio, math.log(harmless_ms(self._objective_ms)) - level.mean)
        score = (math.log(max(now_ms, FASTEST_MS)) - level.mean) / spread
        return shift_nats(score, max(2 * passed / spread, 1.0))

    def _chart(self, name: str) -> _Chart:
        return self._charts.setdefault(name, _Chart())


def grown(total: float, nats: float) -> float:
    """A cumulative sum after one more sample."""
    return max(0.0, total + min(nats, CAP))


def rate_nats(usual: float, worse: float, bad: int, of: int) -> float:
    """Evidence of counts for the share ``worse`` over ``usual``, in nats."""
    worse = min(worse, MOST)
    usual = min(usual, worse)
    return bad * math.log(worse / usual) + (of - bad) * math.log((1 - worse) / (1 - usual))


def shift_nats(score: float, shift: float) -> float:
    """Evidence of a standardised value for a mean of ``shift`` over one of 0, in nats."""
    return shift * (score - shift / 2)


def _most(bad: int, of: int) -> float:
    """Upper end of the one-sided 95 % interval of a share."""
    return 1 - wilson_lower(of - bad, of, ONE_SIDED_95)


def _alarm(kind: Kind, detail: str, sample: _Sample, accuracy: float = 0.0) -> Alarm:
    return Alarm(kind, detail, percentile(sample.all_ms, 0.95), accuracy)
