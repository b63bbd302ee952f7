"""What a device reports about itself and its work."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_sdk.contracts.base import SCHEMA, Wire

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Of things in one interval; sums of a device's lifetime then fit into 64 bits."""
Total = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""Of bytes or of a lifetime; what a JSON number holds exactly."""


class LadderPosition(Wire, kw_only=True):
    """Where the governor stands and why."""

    index: Count
    """0 is the most accurate point."""
    size: Count
    point: str
    reason: str
    """``startup``, ``pressure-cpu``, ``pressure-memory``, ``pressure-thermal``, ``deadline``,
    ``queue``, ``headroom``, ``energy``, ``priority`` (a more important pipeline needs the
    device), ``pinned`` or ``recovered``."""
    since: float
    """Seconds since the epoch."""
    seconds_at: dict[str, float] = msgspec.field(default_factory=dict)
    """Time spent at each point since this release began to serve; points never visited are
    absent."""


class PipelineSample(Wire, kw_only=True):
    """One of several pipelines in an interval; fields as in :class:`TelemetrySample`."""

    pipeline: str
    ladder: LadderPosition | None = None
    frames: Count = 0
    frames_dropped: Count = 0
    queue_depth: Count = 0
    fps: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    latency_p99_ms: float = 0.0
    errors: Count = 0
    labelled: Count = 0
    correct: Count = 0
    low_confidence: Count = 0
    frames_gated: Count = 0
    frames_escalated: Count = 0
    load_ms: float = 0.0
    worker_restarts: Count = 0
    worker_rss_mib: float = 0.0


class TelemetrySample(Wire, kw_only=True):
    """One interval of a device's life.

    Where several pipelines run, counts are their sums and latencies those of all frames;
    ``pipeline``, ``ladder`` and ``load_ms`` are of the most important one, and ``pipelines`` has
    each by itself.
    """

    schema: int = SCHEMA
    device_id: str
    at: float
    """End of the interval, seconds since the epoch."""
    interval_s: float
    release: str = ""
    version: str = ""
    pipeline: str = ""
    ladder: LadderPosition | None = None
    frames: Count = 0
    frames_dropped: Count = 0
    queue_depth: Count = 0
    fps: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    latency_p99_ms: float = 0.0
    errors: Count = 0
    labelled: Count = 0
    correct: Count = 0
    low_confidence: Count = 0
    """Decisions with a top score under 0.5."""
    frames_gated: Count = 0
    """Frames that a cheaper point answered first; 0 where no cascade runs."""
    frames_escalated: Count = 0
    """Those of them that the governor's point looked at again."""
    load_ms: float = 0.0
    """Time to load the active point."""
    worker_restarts: Count = 0
    cpu_percent: float = 0.0
    """Of the whole machine."""
    cpu_pressure: float = 0.0
    """PSI ``some`` in percent, or the load-based stand-in where the kernel has no PSI."""
    memory_available_mib: float = 0.0
    supervisor_rss_mib: float = 0.0
    worker_rss_mib: float = 0.0
    temperature_celsius: float | None = None
    throttled: bool = False
    pipelines: tuple[PipelineSample, ...] = ()
    """The most important first; empty where there is one only."""


class Decision(Wire, kw_only=True):
    """One result of a vision classification pipeline."""

    frame: Total
    label: str
    score: float
    """Softmax probability of the label."""
    expected: str = ""
    """The stream's own label where it has one."""


class ResultBatch(Wire, kw_only=True):
    """Results of one pipeline, several frames at a time."""

    schema: int = SCHEMA
    device_id: str
    pipeline: str
    version: str
    point: str
    at: float
    decisions: tuple[Decision, ...]
