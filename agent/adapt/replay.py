"""What a governor would have done with a recorded trace. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from agent.adapt.arbiter import Contender, arbitrate
from agent.adapt.governor import Decision, Governor, GovernorState, Reading
from agent.adapt.ladder import Rung
from agent.adapt.trace import Segment, TraceTick
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
    return replay_together([(segment, governor)], feedback=feedback)[0]


def replay_together(
    pipelines: Sequence[tuple[Segment, Governor]], *, feedback: bool = True
) -> list[list[Step]]:
    """Let the governors of a device's pipelines decide together, as its arbiter does.

    Args:
        pipelines: recorded at the same time, each with any policy and ladder. Where only one of
            them has a tick, as before another one served, its governor decides alone.
        feedback: as in :func:`replay`. What one pipeline's step would have spared the others stays
            as recorded.
    """
    seats = [_Seat(segment, governor) for segment, governor in pipelines]
    ticks: dict[float, list[tuple[_Seat, TraceTick]]] = {}
    for seat in seats:
        for tick in seat.segment.ticks:
            ticks.setdefault(tick.t, []).append((seat, tick))
    for now in sorted(ticks):
        present = ticks[now]
        contenders = [seat.contender(tick, feedback) for seat, tick in present]
        for (seat, tick), one, outcome in zip(
            present, contenders, arbitrate(contenders, now), strict=True
        ):
            seat.take(tick, one.sample, outcome)
    return [seat.steps for seat in seats]


class _Seat:
    """One pipeline in a replay."""

    def __init__(self, segment: Segment, governor: Governor) -> None:
        first = segment.ticks[0]
        self.segment, self.steps = segment, list[Step]()
        self._governor, self._state = governor, governor.start(first.t, first.index)
        self._stood = first.index  # A sample was taken on the point before its own decision.

    def contender(self, tick: TraceTick, feedback: bool) -> Contender:
        """With the sample as it would have been on the point it stands on."""
        sample, start = tick.sample, self.segment.start
        if feedback:
            rung = self._governor.ladder[self._state.index]
            sample = elsewhere(sample, _ratio(start.ladder, self._stood, rung))
        return Contender(self._governor, self._state, sample, start.priority)

    def take(
        self, tick: TraceTick, sample: PressureSample, outcome: tuple[GovernorState, Decision]
    ) -> None:
        """What was decided on ``tick``."""
        self._state, decision = outcome
        readings = tuple(self._governor.readings(self._state))
        at_s = tick.t - self.segment.ticks[0].t
        self.steps.append(Step(at_s, sample, decision, readings, tick.index))
        self._stood = tick.index


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
