"""Turns the worker's counters into telemetry samples.

Pure bookkeeping: the supervisor feeds it, the clock is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.worker.protocol import Stats

MAX_LATENCIES = 4096
"""Latencies kept per interval; beyond that later ones are not sampled."""


@dataclass(slots=True)
class Interval:
    """Counters since the last sample."""

    started: float
    reports: int = 0
    frames: int = 0
    dropped: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    low_confidence: int = 0
    queue_depth: int = 0
    gated: int = 0
    escalated: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def add(
        self,
        *,
        frames: int,
        dropped: int,
        errors: int,
        labelled: int,
        correct: int,
        low_confidence: int,
        queue_depth: int,
        latencies_ms: Sequence[float],
        gated: int = 0,
        escalated: int = 0,
    ) -> None:
        """Add one report of the worker."""
        self.reports += 1
        self.frames += frames
        self.dropped += dropped
        self.errors += errors
        self.labelled += labelled
        self.correct += correct
        self.low_confidence += low_confidence
        self.queue_depth = queue_depth
        self.gated += gated
        self.escalated += escalated
        room = MAX_LATENCIES - len(self.latencies_ms)
        self.latencies_ms.extend(latencies_ms[:room])

    def add_stats(self, stats: Stats) -> None:
        """The same from a worker's own report."""
        self.add(
            frames=stats.frames,
            dropped=stats.dropped,
            errors=stats.errors,
            labelled=stats.labelled,
            correct=stats.correct,
            low_confidence=stats.low_confidence,
            queue_depth=stats.queue_depth,
            gated=stats.gated,
            escalated=stats.escalated,
            latencies_ms=stats.latencies_ms,
        )

    @classmethod
    def of(cls, parts: Sequence[Interval]) -> Interval:
        """Several streams' counters of the same time; at least one."""
        whole = cls(min(part.started for part in parts))
        for part in parts:
            whole.reports += part.reports
            whole.frames += part.frames
            whole.dropped += part.dropped
            whole.errors += part.errors
            whole.labelled += part.labelled
            whole.correct += part.correct
            whole.low_confidence += part.low_confidence
            whole.queue_depth += part.queue_depth
            whole.gated += part.gated
            whole.escalated += part.escalated
            whole.latencies_ms.extend(part.latencies_ms)
        return whole

    def figures(self, now: float) -> dict[str, Any]:
        """The counters as telemetry names them, ``now`` being the interval's end."""
        p50, p95, p99 = self.quantiles_ms()
        return {
            "frames": self.frames,
            "frames_dropped": self.dropped,
            "queue_depth": self.queue_depth,
            "fps": round(self.frames / max(now - self.started, 1e-6), 2),
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
            "latency_p99_ms": p99,
            "errors": self.errors,
            "labelled": self.labelled,
            "correct": self.correct,
            "low_confidence": self.low_confidence,
            "frames_gated": self.gated,
            "frames_escalated": self.escalated,
        }

    def quantiles_ms(self) -> tuple[float, float, float]:
        """p50, p95 and p99 of the latencies, 0.0 where there were none."""
        ordered = sorted(self.latencies_ms)
        return quantile(ordered, 0.50), quantile(ordered, 0.95), quantile(ordered, 0.99)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest-rank quantile of a sorted sequence; 0.0 when it is empty."""
    if not ordered:
        return 0.0
    rank = min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))
    return ordered[rank]
