"""One pipeline at work: its workers, its place on the ladder, its counts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

from agent.adapt.gate import MemoryRule
from agent.adapt.ladder import Rung, rungs
from agent.adapt.policy import GovernorPolicy
from agent.adapt.steering import Seat, Steering
from agent.adapt.workload import Killings, OwnUse, Recent, with_workload
from agent.joint import JointHost
from agent.meter import Interval
from agent.pipelines.config import PipelineConfig
from agent.sense.sample import PressureSample
from agent.service import ModelService
from agent.update.ports import Clock, PlacedRelease, ServiceStats
from agent.update.trust import Device, usable_points
from agent.worker.protocol import PointChanged, PointRefused, Ready, Results, Stats
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.contracts.telemetry import PipelineSample, ResultBatch
from edge_sdk.contracts.topics import Topics

LOG = logging.getLogger(__name__)


class Stream:
    """Implements :class:`agent.worker.ports.Listener` for one pipeline's workers.

    Args:
        config: the pipeline's.
        policy: the governor's, fitted to the device.
        device: who this is and what it can run.
        topics: the tenant's topic layout.
        clock: time.
        publish: sends a result message.
        steering: where the serving release stands on its ladder.
        own_cpu_percent: share of the machine that the given processes took since the last call.
        host: told what concerns an update.
    """

    def __init__(
        self,
        config: PipelineConfig,
        policy: GovernorPolicy,
        device: Device,
        topics: Topics,
        clock: Clock,
        publish: Callable[[str, bytes], object],
        steering: Steering,
        own_cpu_percent: Callable[[Iterable[int]], float | None],
        host: JointHost,
    ) -> None:
        self.config = config
        self.steering = steering
        self.service: ModelService
        self.ready: Ready | None = None
        self.source = ""
        """What is wrong with its source; empty for nothing."""
        self.own_cpu_percent = 0.0
        """What its processes and the agent took of the machine in the last tick."""
        self._policy = policy
        self._device = device
        self._topic = topics.results(device.device_id, config.name)
        self._clock = clock
        self._publish = publish
        self._own_cpu_percent = own_cpu_percent
        self._host = host
        self._memory = MemoryRule()
        self._interval = Interval(clock.monotonic())
        self._recent = Recent(config.objective_ms, clock.monotonic())
        self._killings = Killings()
        self._point = 0
        self._worker_rss_mib = 0.0

    def join(self, service: ModelService) -> None:
        """Give it the service that calls back into it."""
        self.service = service

    # --- Listener ---

    def on_ready(self, token: str, ready: Ready) -> None:
        """A worker begins to serve."""
        self.ready = ready
        self._point = ready.point
        self._worker_rss_mib = ready.rss_mib
        self._govern(ready.point)
        self._killings.began()
        self._interval = Interval(self._clock.monotonic())
        self._recent = Recent(self.config.objective_ms, self._clock.monotonic())
        self._host.on_ready(self.config.name, token)

    def on_stats(self, token: str, stats: Stats) -> None:
        """Counts of the serving worker."""
        self._worker_rss_mib = stats.rss_mib or self._worker_rss_mib
        self.source = stats.source
        self._interval.add_stats(stats)
        self._recent.add(stats)
        objective_ms, latencies_ms = self.config.objective_ms, stats.latencies_ms
        counts = ServiceStats(
            frames=stats.frames,
            errors=stats.errors,
            labelled=stats.labelled,
            correct=stats.correct,
            latencies_ms=latencies_ms,
            timed=len(latencies_ms) if objective_ms else 0,
            late=sum(ms > objective_ms for ms in latencies_ms) if objective_ms else 0,
            where=f"{self.config.name}/{stats.point}",
        )
        self._host.on_stats(token, counts)

    def on_results(self, release: PlacedRelease, results: Results) -> None:
        """Decisions of a worker of ``release``, passed on."""
        batch = ResultBatch(
            device_id=self._device.device_id,
            pipeline=self.config.name,
            version=release.version,
            point=self.steering.point(release.digest, results.point),
            at=self._clock.now(),
            decisions=results.decisions,
        )
        self._publish(self._topic, encode(batch))

    def on_point(self, event: PointChanged | PointRefused) -> None:
        """The worker moved along the ladder, or could not."""
        name = self.config.name
        self._recent.stands()
        if isinstance(event, PointChanged):
            LOG.info("%s: now on point %d", name, event.index)
            self._point = event.index
            return
        LOG.warning("%s: point %d refused: %s: %s", name, event.index, event.code, event.cause)
        # The governor goes on from where the worker really is, and may ask again after a dwell.
        self.steering.refused(self._point, self._clock.monotonic())

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        """A golden test ended."""
        self._host.on_golden(token, ok, detail)

    def on_worker_crash(self, token: str, detail: str) -> None:
        """A worker on trial died or hung."""
        self._host.on_worker_crash(token, detail)

    def on_killed(self, token: str) -> None:
        """Somebody ended the serving worker; the kernel, maybe."""
        self._killings.killed()

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        """The committed release keeps crashing."""
        self._host.on_service_unhealthy(token, detail)

    # --- governor ---

    def _govern(self, index: int) -> None:
        """Govern the serving release, from the rung where its worker stands."""
        serving = self.service.serving
        if serving is None:
            self.steering.release()
            return

        def ladder() -> list[Rung]:
            path = serving.manifest_path
            manifest = decode(path.read_bytes(), Manifest, str(path))
            return rungs(usable_points(manifest, self._device.profile_id, self._device.runtimes))

        self.steering.govern(serving.digest, ladder, index, self._clock.monotonic())

    @property
    def alarmed(self) -> bool:
        """Whether frames were late since the governor last looked, or the worker was ended."""
        return self._recent.alarmed or self._killings.waiting

    def seat(self, sensed: PressureSample, now: float) -> Seat:
        """What this pipeline brings to a tick of the governors."""
        recent = self._recent.take(now)
        pids = (os.getpid(), *self.service.worker_pids)
        killed = self._killings.take(sensed.oom_kills)
        own = OwnUse(self._own_cpu_percent(pids), self._worker_rss_mib, killed)
        self.own_cpu_percent = own.cpu_percent or 0.0
        sample = with_workload(sensed, recent, self.config, own)
        before = self._memory.allowed
        self._memory = self._memory.after(self._policy, sample, now)
        if self._memory.allowed != before:
            self.service.allow_cascade(self._memory.allowed)
        return Seat(self.steering, self.config.priority, sample)

    def move(self, index: int | None) -> None:
        """Bring the worker where the governor decided; None leaves it where it is."""
        decision = self.steering.decision
        if index is not None and decision is not None:
            LOG.info("%s: point %s (%s)", self.config.name, decision.point, decision.reason)
            self._recent.told(index)
            self.service.set_point(index, alone=decision.alone)

    # --- reports ---

    def measured(self, *, afresh: bool) -> tuple[PipelineSample, Interval]:
        """What it did since the last time it was asked to begin ``afresh``."""
        now = self._clock.monotonic()
        interval = self._interval
        if afresh:
            self._interval = Interval(now)
        sample = PipelineSample(
            pipeline=self.config.name,
            ladder=self.steering.position(self._clock.now()),
            load_ms=0.0 if self.ready is None else self.ready.load_ms,
            worker_restarts=self.service.restarts,
            worker_rss_mib=self._worker_rss_mib,
            **interval.figures(now),
        )
        return sample, interval

    def describe(self) -> dict[str, Any]:
        """What ``edge-agent status`` shows of one pipeline among several."""
        decision = self.steering.decision
        return {
            "priority": self.config.priority,
            "point": "" if decision is None else decision.point,
            "source": self.source,
            "worker_pids": self.service.worker_pids,
            "governor": self.steering.describe(),
        }
