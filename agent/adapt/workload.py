"""What the agent's own work adds to a reading of the sensors. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from agent.meter import Interval, quantile
from agent.pipelines.config import PipelineConfig
from agent.sense.sample import PressureSample
from agent.worker.protocol import Stats

LATENCY_QUANTILE = 0.90
"""Of half a second's frames. A higher one would be the slowest frame, which the machine's own
hiccups decide."""


class Recent:
    """A worker's counts since the last tick, of the point that it was told to stand on.

    What comes from a point that is being left says nothing of the next one, and is left out.

    Args:
        objective_ms: the pipeline's; 0 for none.
        now: monotonic seconds.
    """

    def __init__(self, objective_ms: float, now: float) -> None:
        self._objective_ms = objective_ms
        self._interval = Interval(now)
        self._awaited: int | None = None

    def told(self, index: int) -> None:
        """The worker was told to go to a point."""
        self._awaited = index

    def stands(self) -> None:
        """It is there, or cannot go there."""
        self._awaited = None

    def add(self, stats: Stats) -> None:
        """One report."""
        if self._awaited in (None, stats.point):
            self._interval.add_stats(stats)

    @property
    def alarmed(self) -> bool:
        """Whether frames were late or dropped: the governor should not wait for its tick."""
        return bool(_missed(self._interval, self._objective_ms))

    def take(self, now: float) -> Interval:
        """The counts so far; those from ``now`` on come next."""
        taken, self._interval = self._interval, Interval(now)
        return taken


class Killings:
    """Tells whether the kernel ended the worker for want of memory.

    A process is told by SIGKILL, as anybody may send it; where the kernel counts whom it ended
    itself, that count has to have grown since the worker began.
    """

    def __init__(self) -> None:
        self._killed = self._began = False
        self._before: int | None = None

    def began(self) -> None:
        """A worker begins."""
        self._began = True

    def killed(self) -> None:
        """It was ended by a SIGKILL that the agent did not send."""
        self._killed = True

    @property
    def waiting(self) -> bool:
        """Whether there is one to be judged."""
        return self._killed

    def take(self, oom_kills: int | None) -> bool:
        """Whether there was one since the last call, with the kernel's count now."""
        killed, self._killed = self._killed, False
        grew = oom_kills is None or self._before is None or oom_kills > self._before
        if self._began or killed:
            self._before, self._began = oom_kills, False
        return killed and grew


@dataclass(frozen=True, slots=True)
class OwnUse:
    """What the agent's processes take; None where it cannot be told."""

    cpu_percent: float | None = None
    """Of the whole machine."""
    worker_rss_mib: float | None = None
    worker_killed: bool = False
    """By the kernel, for want of memory."""


def with_workload(
    sample: PressureSample, recent: Interval, pipeline: PipelineConfig, own: OwnUse
) -> PressureSample:
    """The sample with what the pipeline feels.

    Args:
        sample: from the sensors.
        recent: the worker's counts since the previous sample.
        pipeline: its objective and source.
        own: the agent's own processes.
    """
    paced = is_paced(pipeline)
    return msgspec.structs.replace(
        sample,
        own_cpu_percent=own.cpu_percent,
        worker_rss_mib=own.worker_rss_mib,
        worker_killed=own.worker_killed,
        deadline_miss_share=_missed(recent, pipeline.objective_ms),
        latency_share=_latency_share(recent, pipeline.objective_ms),
        queue_frames=float(recent.queue_depth) if paced and recent.reports else None,
        paced=paced,
    )


def is_paced(pipeline: PipelineConfig) -> bool:
    """Whether frames come at a rate of their own; a file without one is read as fast as it goes."""
    return pipeline.source.kind == "camera" or pipeline.source.fps > 0


def _missed(recent: Interval, objective_ms: float) -> float | None:
    """Share of frames dropped or late; None without frames."""
    offered = recent.frames + recent.dropped
    if not offered:
        return None
    late = sum(1 for ms in recent.latencies_ms if objective_ms and ms > objective_ms)
    return min(1.0, (late + recent.dropped) / offered)


def _latency_share(recent: Interval, objective_ms: float) -> float | None:
    if not (objective_ms and recent.latencies_ms):
        return None
    return quantile(sorted(recent.latencies_ms), LATENCY_QUANTILE) / objective_ms
