"""Running releases: the candidate's golden test and trial, and the committed release's service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.update.events import (
    Event,
    GoldenFailed,
    GoldenPassed,
    ServiceDegraded,
    TrialFailed,
    TrialPassed,
    WorkerCrashed,
)
from agent.update.health import Baseline, Counts, Proven, baseline, judge
from agent.update.limits import UpdateLimits
from agent.update.outcomes import unproven
from agent.update.ports import Clock, Host, PlacedRelease, ServiceStats, UpdateSensors
from agent.update.probation import Probation
from agent.update.state import ReleaseRecord, ServiceRecord
from agent.update.watch import Watch
from edge_sdk.contracts.update import TrialPolicy

Emit = Callable[[Event], None]


@dataclass(slots=True)
class _Trial:
    policy: TrialPolicy
    bar: Baseline
    token: str
    began: float
    started: float
    """Of the present worker; a crash starts another within the same trial."""
    probation: Probation
    counts: Counts = field(default_factory=Counts)
    ready: bool = False


class Proving:
    """Carries out the running effects.

    Args:
        host: the owner of the workers.
        sensors: whether heat or other programs, and not a release, make everything slower.
        clock: time.
        limits: timeouts.
        emit: receives the events.
        objective_ms: the pipeline's latency objective; 0 for none.
    """

    def __init__(
        self,
        host: Host,
        sensors: UpdateSensors,
        clock: Clock,
        limits: UpdateLimits,
        emit: Emit,
        objective_ms: float = 0.0,
    ) -> None:
        self._host, self._sensors, self._clock = host, sensors, clock
        self._limits, self._emit = limits, emit
        self._objective_ms = objective_ms
        self._golden_token = ""
        self._golden_began = 0.0
        self._trial: _Trial | None = None
        self._service_token = ""
        self._service_counts = Counts()
        self._watch: Watch | None = None
        self._tokens = 0

    def run_golden(self, release: PlacedRelease) -> None:
        """Start the golden test; ends in GoldenPassed or GoldenFailed."""
        self._golden_token = self._new_token("golden")
        self._golden_began = self._clock.monotonic()
        self._host.start_golden(release, self._golden_token)

    def cancel_golden(self) -> None:
        """Kill the golden test if one runs."""
        token, self._golden_token = self._golden_token, ""
        if token:
            self._host.cancel_golden(token)

    def run_trial(
        self,
        release: PlacedRelease,
        candidate: ReleaseRecord,
        serving: ReleaseRecord | None,
        policy: TrialPolicy,
    ) -> None:
        """Start the trial, or another worker within it after a crash."""
        now, token = self._clock.monotonic(), self._new_token("trial")
        if self._trial is None:
            bar = baseline(candidate, serving, self._objective_ms)
            probation = Probation.under(policy, self._objective_ms)
            self._trial = _Trial(policy, bar, token, now, now, probation)
        self._trial.token, self._trial.started, self._trial.ready = token, now, False
        self._service_token, self._watch = "", None
        self._host.start_trial(release, token)

    def commit(self, release: PlacedRelease, record: ReleaseRecord) -> None:
        """The trial's worker is the committed one now."""
        self._watch_over(record)
        self._service_token = self._trial.token if self._trial else self._new_token("serve")
        self._service_counts = Counts()
        self._trial = None
        self._host.commit(release, self._service_token)

    def serve(self, release: PlacedRelease | None, record: ReleaseRecord | None) -> None:
        """Serve the committed release, or nothing; ends a trial."""
        self._watch_over(record)
        self._trial = None
        self._service_counts = Counts()
        self._service_token = self._new_token("serve")
        self._host.serve(release, self._service_token)

    def measured(self, before: ServiceRecord) -> ServiceRecord | None:
        """What the committed release has shown since last asked, added to ``before``."""
        counts, self._service_counts = self._service_counts, Counts()
        return counts.record(before) if counts.frames else None

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        """The golden test of ``token`` ended."""
        if not token or token != self._golden_token:
            return
        self._golden_token = ""
        if ok:
            self._emit(GoldenPassed())
        else:
            self._emit(GoldenFailed(detail or "It does not reproduce its golden outputs here."))

    def on_ready(self, token: str) -> None:
        """The worker of ``token`` serves."""
        if self._trial is not None and token == self._trial.token:
            self._trial.ready = True

    def on_stats(self, token: str, stats: ServiceStats) -> None:
        """Counts of the worker of ``token``."""
        if self._trial is not None and token == self._trial.token:
            self._trial.ready = True
            self._trial.counts = self._trial.counts.plus(stats)
            self._trial.probation = self._trial.probation.plus(stats)
            self._judge(self._trial)
        elif token and token == self._service_token:
            self._service_counts = self._service_counts.plus(stats)
            self._look_after(stats)

    def _watch_over(self, record: ReleaseRecord | None) -> None:
        probation = record.probation if record is not None else None
        self._watch = None if probation is None else Watch(probation, self._objective_ms)

    def _look_after(self, stats: ServiceStats) -> None:
        if self._watch is None:
            return
        disturbed = self._sensors.throttled() or self._sensors.crowded()
        alarm = self._watch.add(stats, self._clock.monotonic(), disturbed=disturbed)
        if alarm is not None:
            self._emit(ServiceDegraded(alarm))

    def on_worker_crash(self, token: str, detail: str) -> None:
        """The worker of ``token`` died; matters here only during a trial."""
        if self._trial is not None and token == self._trial.token:
            self._emit(WorkerCrashed(detail))

    def serves(self, token: str) -> bool:
        """Whether ``token`` is the committed release's present start."""
        return bool(token) and token == self._service_token

    def tick(self) -> None:
        """Timeouts and verdicts that come from time alone."""
        now = self._clock.monotonic()
        if self._golden_token and now - self._golden_began > self._limits.golden_timeout_s:
            self.cancel_golden()
            self._emit(GoldenFailed(f"No result after {self._limits.golden_timeout_s:.0f} s."))
        if self._trial is not None:
            self._tick_trial(self._trial, now)

    def _tick_trial(self, trial: _Trial, now: float) -> None:
        waited_s = now - trial.started
        if not trial.ready and waited_s > self._limits.trial_start_timeout_s:
            detail = f"Its worker was not ready after {waited_s:.0f} s."
            self._emit(TrialFailed(unproven(detail)))
            return
        self._judge(trial)

    def _judge(self, trial: _Trial) -> None:
        elapsed_s = self._clock.monotonic() - trial.began
        verdict = judge(trial.policy, trial.bar, trial.counts, elapsed_s)
        if verdict is None:
            return
        if isinstance(verdict, Proven):
            self._emit(TrialPassed(trial.counts.record(), verdict.detail, trial.probation))
        else:
            self._emit(TrialFailed(verdict))

    def _new_token(self, kind: str) -> str:
        self._tokens += 1
        return f"{kind}-{self._tokens}"
