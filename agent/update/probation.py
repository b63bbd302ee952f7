"""What a release showed on trial: the bar it is held to for as long as it serves.

Sums alone, kept with the release's record in the state file. Latencies are kept as logarithms,
since they are multiplied by what slows them down, and per operating point, since a governor that
rises to a better one makes each frame slower and nothing worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from agent.update.ports import ServiceStats
from edge_sdk.contracts.base import Wire
from edge_sdk.contracts.update import TrialPolicy

MAX_LEVELS = 64
"""Operating points of all pipelines that are told apart."""
LEVEL_FRAMES = 10_000
"""Frames after which a level is not refined any more."""
FASTEST_MS = 1e-3

Kind = Literal["latency", "late", "errors", "accuracy"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """The release has got worse."""

    kind: Kind
    detail: str
    """One sentence with figures."""
    p95_ms: float
    """Latency of the last sample; 0 where it had none."""
    accuracy: float
    """Share of labelled frames decided correctly since the evidence began; 0 without labels."""


class Level(Wire, kw_only=True):
    """Latencies at one operating point, as natural logarithms of milliseconds."""

    frames: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared distances from the mean."""

    def plus(self, latencies_ms: Sequence[float]) -> Level:
        """With more frames (Chan, Golub and LeVeque's pairwise update)."""
        if not latencies_ms or self.frames >= LEVEL_FRAMES:
            return self
        logs = [math.log(max(latency, FASTEST_MS)) for latency in latencies_ms]
        more = len(logs)
        total, mean = self.frames + more, sum(logs) / more
        apart = mean - self.mean
        return Level(
            frames=total,
            mean=self.mean + apart * more / total,
            squares=self.squares
            + sum((value - mean) ** 2 for value in logs)
            + apart**2 * self.frames * more / total,
        )

    @property
    def spread(self) -> float:
        """Standard deviation of a single frame."""
        return math.sqrt(self.squares / self.frames) if self.frames else 0.0


class Probation(Wire, kw_only=True):
    """Counts of a trial, and what its policy would not have let pass."""

    frames: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    timed: int = 0
    """Frames that were held to an objective."""
    late: int = 0
    """Of these, slower than it."""
    objective_ms: float = 0.0
    """The strictest of the pipelines; 0 for none."""
    levels: dict[str, Level] = msgspec.field(default_factory=dict)
    max_latency_ratio: float = TrialPolicy().max_latency_ratio
    max_error_rate: float = TrialPolicy().max_error_rate
    accuracy_drop: float = TrialPolicy().accuracy_drop

    @classmethod
    def under(cls, policy: TrialPolicy, objective_ms: float) -> Probation:
        """The empty record of a trial that begins."""
        return cls(
            objective_ms=objective_ms,
            max_latency_ratio=policy.max_latency_ratio,
            max_error_rate=policy.max_error_rate,
            accuracy_drop=policy.accuracy_drop,
        )

    def plus(self, stats: ServiceStats) -> Probation:
        """With one more report."""
        levels = self.levels
        if stats.where in levels or len(levels) < MAX_LEVELS:
            known = levels.get(stats.where, Level())
            levels = {**levels, stats.where: known.plus(stats.latencies_ms)}
        return replace(
            self,
            frames=self.frames + stats.frames,
            errors=self.errors + stats.errors,
            labelled=self.labelled + stats.labelled,
            correct=self.correct + stats.correct,
            timed=self.timed + stats.timed,
            late=self.late + stats.late,
            levels=levels,
        )
