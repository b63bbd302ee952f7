"""What a governor would have done with a recorded trace. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from agent.adapt.governor import Decision, Governor, Reading
from agent.adapt.ladder import Rung
from agent.adapt.trace import Segment
from agent.sense.sample import PressureSample


@dataclass(frozen=True, slots=True)
class Step:
    """One tick of a replay."""

    at_s: float
    """Since the beginning of the segment."""
    sample: PressureSample
    """As the governor saw it."""
    decision: Decision
    readings: tuple[Reading, ...]
    recorded: int
    """The rung that the device stood on, of the recorded ladder."""


@dataclass(frozen=True, slots=True)
class Move:
    """A step along the ladder."""

    at_s: float
    origin: str
    target: str
    reason: str


@dataclass(slots=True)
class Summary:
    """A replay in figures."""

    seconds: float = 0.0
    seconds_at: dict[str, float] = field(default_factory=dict)
    """Per point, in the ladder's order; every point of the ladder is there."""
    moves: list[Move] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    """Moves by reason."""
    mean_accuracy: float = 0.0
    """The points' measured accuracies, by time."""
    top_accuracy: float = 0.0


def replay(segment: Segment, governor: Governor, *, feedback: bool = True) -> list[Step]:
    """Let ``governor`` decide on every sample of a segment.

    Args:
        segment: recorded.
        governor: any policy and ladder.
        feedback: where the governor stands on another point than the device did, latency, own
            processor time, deadline misses and queue follow the points' costs; without it every
            sample stays as recorded. Pressure of others, memory and heat always stay.
    """
    first = segment.ticks[0]
    state = governor.start(first.t, first.index)
    steps: list[Step] = []
    stood = first.index  # A sample was taken on the point before its own decision.
    for tick in segment.ticks:
        sample = tick.sample
        if feedback:
            ratio = _ratio(segment.start.ladder, stood, governor.ladder[state.index])
            sample = elsewhere(sample, ratio)
        state, decision = governor.decide(state, sample, tick.t)
        readings = tuple(governor.readings(state))
        steps.append(Step(tick.t - first.t, sample, decision, readings, tick.index))
        stood = tick.index
    return steps


def elsewhere(sample: PressureSample, ratio: float) -> PressureSample:
    """The sample as it would have been on a point that costs ``ratio`` times as much.

    Deadline misses go where the latency no longer explains them, and appear, at least a tenth,
    where it begins to: the latency is a p90.
    """
    if ratio == 1.0:
        return sample
    changes: dict[str, float] = {}
    own, busy, latency = sample.own_cpu_percent, sample.cpu_percent, sample.latency_share
    if own is not None:
        changes["own_cpu_percent"] = min(100.0, own * ratio)
        if busy is not None:
            changes["cpu_percent"] = min(100.0, max(0.0, busy + own * (ratio - 1.0)))
    if latency is not None:
        changes["latency_share"] = latency * ratio
        missed = sample.deadline_miss_share
        if missed is not None and ratio < 1.0 and latency * ratio <= 1.0:
            changes["deadline_miss_share"] = 0.0
        elif missed is not None and ratio > 1.0 and latency * ratio > 1.0:
            changes["deadline_miss_share"] = max(missed, 0.1)
        if sample.queue_frames is not None and ratio < 1.0 and latency * ratio <= 1.0:
            changes["queue_frames"] = 0.0
    return msgspec.structs.replace(sample, **changes)


def summarise(steps: Sequence[Step], ladder: Sequence[Rung]) -> Summary:
    """A replay in figures; every tick counts from the one before it."""
    summary = Summary(
        seconds_at={rung.point: 0.0 for rung in ladder}, top_accuracy=ladder[0].accuracy
    )
    weighted, before, index = 0.0, 0.0, steps[0].decision.index if steps else 0
    for step in steps:
        elapsed_s = max(0.0, step.at_s - before)
        summary.seconds_at[ladder[index].point] += elapsed_s
        weighted += elapsed_s * ladder[index].accuracy
        if step.decision.changed:
            target = step.decision
            summary.moves.append(Move(step.at_s, ladder[index].point, target.point, target.reason))
        before, index = max(before, step.at_s), step.decision.index
    summary.seconds = before
    summary.reasons = dict(Counter(move.reason for move in summary.moves))
    summary.mean_accuracy = weighted / before if before else ladder[index].accuracy
    return summary


def _ratio(recorded: Sequence[Rung], stood: int, rung: Rung) -> float:
    """Cost of ``rung`` as a multiple of the point the device stood on; 1.0 when not known."""
    if not 0 <= stood < len(recorded):
        return 1.0
    there = recorded[stood].cost
    return rung.cost / there if there > 0.0 and rung.cost > 0.0 else 1.0
