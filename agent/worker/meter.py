"""Counts between two statistics messages. Pure: fed by the frame loop."""

from __future__ import annotations

from agent.worker.protocol import Stats
from edge_sdk.contracts.telemetry import Decision

MAX_LATENCIES = 1024
LOW_CONFIDENCE = 0.5


class Meter:
    """Adds up decisions until they are taken.

    Args:
        objective_ms: a frame that takes longer is late; 0 for none.
    """

    def __init__(self, objective_ms: float = 0.0) -> None:
        self._objective_ms = objective_ms
        self._reset()

    def _reset(self) -> None:
        self._frames = 0
        self.late = 0
        """Frames slower than the objective."""
        self._errors = 0
        self._labelled = 0
        self._correct = 0
        self._low = 0
        self._lost = 0
        self._latencies_ms: list[float] = []
        self._stride = 1

    def decided(self, decision: Decision, latency_ms: float) -> None:
        """One frame came to a decision."""
        self.stepped(latency_ms)
        if decision.expected:
            self._labelled += 1
            self._correct += decision.expected == decision.label
        self._low += decision.score < LOW_CONFIDENCE

    def stepped(self, latency_ms: float) -> None:
        """One frame, or step of a stream, was looked at; most end in no decision."""
        if self._frames % self._stride == 0:
            self._latencies_ms.append(latency_ms)
            if len(self._latencies_ms) > MAX_LATENCIES:
                # Every second one goes, and from now on every second one is not kept.
                del self._latencies_ms[1::2]
                self._stride *= 2
        self._frames += 1
        self.late += bool(self._objective_ms) and latency_ms > self._objective_ms

    def failed(self) -> None:
        """One frame came to none."""
        self._errors += 1

    def lost_results(self, count: int) -> None:
        """Decisions that could not be handed over."""
        self._lost += count

    def take(
        self,
        *,
        point: int,
        dropped: int,
        queue_depth: int,
        rss_mib: float,
        source: str,
        gated: int = 0,
        escalated: int = 0,
    ) -> Stats:
        """Everything since the last call, with the given state of the moment."""
        stats = Stats(
            frames=self._frames,
            dropped=dropped,
            queue_depth=queue_depth,
            errors=self._errors,
            labelled=self._labelled,
            correct=self._correct,
            low_confidence=self._low,
            gated=gated,
            escalated=escalated,
            latencies_ms=tuple(self._latencies_ms),
            point=point,
            rss_mib=rss_mib,
            results_dropped=self._lost,
            source=source,
        )
        self._reset()
        return stats
