"""From probabilities to words heard: pure functions of a score and a time.

A word is heard when the mean of its last few scores reaches the cutoff, once per utterance: it must
fall below the cutoff and a refractory time must pass before it is heard again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from edge_sdk.audio.caution import Cautions
from edge_sdk.contracts.audio import WakeWord

_CLOCK_S: Final = 1e-6
"""Far less than a sample: how times are rounded decides nothing."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one word."""

    recent: tuple[float, ...] = ()
    """The last scores, as many as the window is long."""
    armed: bool = True
    """The mean has been below the cutoff since the word was last heard."""
    heard_s: float = -math.inf
    """When it was last heard."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A word was heard."""

    label: str
    score: float
    """Mean over the window."""
    at_s: float
    """Time of the last score, on the stream's own clock."""


def judge(rule: WakeWord, watch: Watch, score: float, at_s: float) -> tuple[Watch, float | None]:
    """One more score.

    Args:
        rule: of the word.
        watch: what is remembered.
        score: 0 to 1; what is no number counts as 0.
        at_s: its time; it must not run backwards.

    Returns:
        What to remember, and the mean if the word was heard now.
    """
    bounded = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
    recent = (*watch.recent, bounded)[-rule.window_steps :]
    # A window that is not full yet could be filled by a single outlier.
    mean = math.fsum(recent) / rule.window_steps if len(recent) == rule.window_steps else 0.0
    if mean < rule.cutoff:
        return Watch(recent, True, watch.heard_s), None
    if not watch.armed or at_s - watch.heard_s < rule.refractory_s - _CLOCK_S:
        # Not armed: an utterance that outlasts the refractory time is still the same one.
        return Watch(recent, False, watch.heard_s), None
    return Watch(recent, False, at_s), mean


class Detector:
    """Several words at once.

    Args:
        rules: one per word; :attr:`~edge_sdk.contracts.audio.WakeWord.output` says which score.
        cautions: raises cutoffs of words that are heard too often; told of hits by whoever reports
            them. None leaves them alone.
    """

    def __init__(self, rules: Sequence[WakeWord], cautions: Cautions | None = None) -> None:
        self._rules = tuple(rules)
        self._cautions = cautions or Cautions()
        self.reset()

    def reset(self) -> None:
        """Another stream, with a clock of its own."""
        self._watches = [Watch() for _ in self._rules]

    def step(self, scores: Sequence[float], at_s: float) -> list[Hit]:
        """The words that these scores complete.

        Args:
            scores: one per output of the network, 0 to 1.
            at_s: seconds on the stream's clock.
        """
        hits = []
        for index, rule in enumerate(self._rules):
            now = self._cautions.rule(rule, at_s)
            watch, mean = judge(now, self._watches[index], float(scores[rule.output]), at_s)
            self._watches[index] = watch
            if mean is not None:
                hits.append(Hit(rule.label, mean, at_s))
        return hits

    def forget_scores(self) -> None:
        """Something is missing in the stream: windows begin anew, refractory times go on."""
        self._watches = [replace(watch, recent=()) for watch in self._watches]
