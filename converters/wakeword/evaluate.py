"""How often a phrase is heard, and how often something else is taken for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from converters.wakeword.ears import Halves
from converters.wakeword.scoring import (
    Point,
    Scores,
    cutoff_within,
    false_accept_curve,
    heard,
    reports,
    window_means,
    windows,
)
from converters.wakeword.statistics import at_most, poisson_interval, wilson_interval
from converters.wakeword.trial import Hours, Scorer, Spoken
from edge_sdk.audio.samples import Floats

REFRACTORY_S = 1.5
WORTH = 0.01
"""Of the recall, for which reports may come later: a step of the window is a step of delay."""
PROMPT_MS = 200.0
"""From a phrase's end to its report, for 95 of 100 where they are heard soonest."""
_LEAST = 1e-9


class Rule(msgspec.Struct, frozen=True):
    """When the phrase counts as heard."""

    cutoff: float
    window_steps: int
    refractory_s: float = REFRACTORY_S


class Recall(msgspec.Struct, frozen=True):
    """Under one condition."""

    condition: str
    heard: int
    recordings: int
    recall: float
    interval: tuple[float, float]
    """95 %, Wilson."""
    latency_ms: tuple[float, float]
    """Median and 95th percentile from the end of the phrase to the report; negative is before."""


class NearMisses(msgspec.Struct, frozen=True):
    """Synthesised utterances that differ by a sound or two."""

    taken: int
    utterances: int


class Accepted(msgspec.Struct, frozen=True):
    """In sound of one kind."""

    kind: str
    hours: float
    false_accepts: int


class FalseAccepts(msgspec.Struct, frozen=True):
    """In all sound without the phrase."""

    hours: float
    count: int
    per_hour: float
    per_hour_interval: tuple[float, float]
    """95 %, Poisson, exact."""
    at_most_per_hour: float
    """What these hours allow to claim: the one-sided 95 % bound."""
    kinds: tuple[Accepted, ...]


class DetPoint(msgspec.Struct, frozen=True):
    """One cutoff."""

    cutoff: float
    false_accepts_per_hour: float
    recall: dict[str, float]


@dataclass(frozen=True, slots=True)
class Trial:
    """What a network answered."""

    spoken: Mapping[str, Sequence[tuple[Spoken, Floats]]]
    """By condition."""
    silent: Mapping[str, tuple[float, Sequence[Floats]]]
    """Hours and scores by kind."""
    step_s: float
    """Between two scores."""
    near: Sequence[Floats] = ()
    """Scores of near misses, each by itself: far denser than in any home, so they are no hours."""

    @property
    def hours(self) -> float:
        """Of sound without the phrase."""
        return sum(hours for hours, _ in self.silent.values())

    def streams(self) -> list[Floats]:
        """Scores of all sound without the phrase."""
        return [stream for _, streams in self.silent.values() for stream in streams]


def run_trial(
    scorer: Scorer,
    spoken: Mapping[str, Sequence[Spoken]],
    silent: Sequence[Hours],
    step_s: float,
    near: Sequence[Halves] = (),
) -> Trial:
    """Let a network hear everything once."""
    return Trial(
        {name: [(one, scorer(one.features)) for one in many] for name, many in spoken.items()},
        {kind.kind: (kind.hours, [scorer(stream) for stream in kind.streams]) for kind in silent},
        step_s,
        [scorer(features) for features in near],
    )


def choose_rule(
    trial: Trial, budget_per_hour: float, worth: float = WORTH, prompt_ms: float = PROMPT_MS
) -> Rule:
    """Window and cutoff that hear most within the budget, and soon.

    The number of false accepts is rounded down: hours too few for a single one allow none.

    Args:
        trial: phrases, and hours without them.
        budget_per_hour: false accepts, at most.
        worth: recall that a longer window must add, as it answers later; among equals the shorter.
        prompt_ms: a longer window is not taken if its reports come later than that.
    """
    best: tuple[Rule, float] | None = None
    for steps in windows(trial.step_s):
        curve = false_accept_curve(trial.streams(), steps, REFRACTORY_S, trial.step_s)
        cutoff = min(max(cutoff_within(curve, budget_per_hour * trial.hours), 1e-3), 1.0)
        rule = Rule(cutoff=cutoff, window_steps=steps)
        rows = recalls(trial, rule)
        found = float(np.mean([row.recall for row in rows])) if rows else 0.0
        if best is None or (
            found >= best[1] + max(worth - _LEAST, _LEAST) and _late_ms(rows) <= prompt_ms
        ):
            best = (rule, found)
    return best[0] if best else Rule(cutoff=0.5, window_steps=1)


def _late_ms(rows: Sequence[Recall]) -> float:
    """The 95th percentile where phrases are heard soonest."""
    return min((row.latency_ms[1] for row in rows if row.heard), default=0.0)


def recalls(trial: Trial, rule: Rule) -> tuple[Recall, ...]:
    """By condition."""
    return tuple(_recall(name, many, rule, trial.step_s) for name, many in trial.spoken.items())


def _recall(name: str, many: Sequence[tuple[Spoken, Floats]], rule: Rule, step_s: float) -> Recall:
    delays = [
        ((step + 1) * step_s - one.end_s) * 1000.0
        for one, scores in many
        if (step := _step(one, scores, rule.window_steps, rule.cutoff, step_s)) is not None
    ]
    return Recall(
        condition=name,
        heard=len(delays),
        recordings=len(many),
        recall=len(delays) / max(1, len(many)),
        interval=wilson_interval(len(delays), len(many)),
        latency_ms=(float(np.median(delays)), float(np.quantile(delays, 0.95)))
        if delays
        else (0.0, 0.0),
    )


def _step(one: Spoken, scores: Floats, steps: int, cutoff: float, step_s: float) -> int | None:
    return heard(scores, steps, cutoff, *one.steps(step_s))


def false_accepts(trial: Trial, rule: Rule) -> FalseAccepts:
    """In all hours together, and by kind."""
    kinds = tuple(
        Accepted(kind, hours, sum(_count(stream, rule, trial.step_s) for stream in streams))
        for kind, (hours, streams) in trial.silent.items()
    )
    count, hours = sum(kind.false_accepts for kind in kinds), max(trial.hours, 1e-9)
    low, high = poisson_interval(count)
    return FalseAccepts(
        hours=trial.hours,
        count=count,
        per_hour=count / hours,
        per_hour_interval=(low / hours, high / hours),
        at_most_per_hour=at_most(count) / hours,
        kinds=kinds,
    )


def near_misses_taken(trial: Trial, rule: Rule) -> NearMisses:
    """How many were taken for the phrase."""
    taken = sum(_count(scores, rule, trial.step_s) > 0 for scores in trial.near)
    return NearMisses(taken, len(trial.near))


def _count(scores: Floats, rule: Rule, step_s: float) -> int:
    means = window_means(scores, rule.window_steps)
    return len(reports(means, rule.cutoff, rule.refractory_s, step_s))


def det_curve(trial: Trial, rule: Rule) -> tuple[DetPoint, ...]:
    """Recall by false accepts per hour, with the rule's window."""
    curve: list[Point] = false_accept_curve(
        trial.streams(), rule.window_steps, rule.refractory_s, trial.step_s, points=80
    )
    peaks = {
        name: np.array([_highest(*one, rule.window_steps, trial.step_s) for one in many])
        for name, many in trial.spoken.items()
    }
    return tuple(
        DetPoint(
            cutoff=point.cutoff,
            false_accepts_per_hour=point.false_accepts / max(trial.hours, 1e-9),
            recall={name: float(np.mean(high >= point.cutoff)) for name, high in peaks.items()},
        )
        for point in curve
    )


def _highest(one: Spoken, scores: Floats, steps: int, step_s: float) -> float:
    means: Scores = window_means(scores, steps)
    first, last = one.steps(step_s)
    return float(means[first : last + 1].max(initial=0.0))
