"""A cutoff that follows the room: it rises where a word is heard more often than it can be meant.

A television that runs for hours, or a name close to the word, makes a cutoff that was right
elsewhere wrong here. Whoever owns the device knows how often the word can be meant; beyond that,
every level halves what is left between the cutoff and certainty, and quiet hours take the levels
back one by one. Pure functions of hits and time, and a thin keeper of several words.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from edge_sdk.contracts.audio import WakeWord

HOUR_S = 3600.0
LEVELS = 4
"""Cutoff 0.8 becomes 0.9875 at most: a word that is said clearly still passes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caution:
    """What is remembered of one word."""

    level: int = 0
    """0 to :data:`LEVELS`; 0 is the cutoff as configured."""
    since_s: float = 0.0
    """When the level last changed, or an hour was last found too busy to lower it."""
    heard_s: tuple[float, ...] = ()
    """Hits of the last hour since then; at most one more than may be."""


def after_hit(caution: Caution, most_per_hour: int, at_s: float) -> Caution:
    """The word was heard.

    Args:
        caution: what is remembered.
        most_per_hour: hits that may be meant, at least 1.
        at_s: when; it must not run backwards.
    """
    heard = (*_last_hour(caution, at_s), at_s)
    if len(heard) <= most_per_hour:
        return Caution(caution.level, caution.since_s, heard)
    return Caution(min(caution.level + 1, LEVELS), at_s)


def after_time(caution: Caution, most_per_hour: int, at_s: float) -> Caution:
    """Time went by: an hour with at most half of what may be said lowers the level by one.

    Half, so that a room at the limit does not swing between two levels.
    """
    if caution.level == 0 or at_s - caution.since_s < HOUR_S:
        return caution
    heard = _last_hour(caution, at_s)
    calm = 2 * len(heard) <= most_per_hour
    return Caution(caution.level - calm, at_s, heard)


def cautious(rule: WakeWord, level: int) -> WakeWord:
    """The rule at a level: what is left between cutoff and certainty, halved so often."""
    if level == 0:
        return rule
    return msgspec.structs.replace(rule, cutoff=1 - (1 - rule.cutoff) / 2**level)


class Cautions:
    """Of several words, for as long as a worker listens.

    Args:
        most_per_hour: hits of one word that may be meant; 0 leaves all cutoffs alone.
    """

    def __init__(self, most_per_hour: int = 0) -> None:
        self._most_per_hour = most_per_hour
        self._of: dict[str, Caution] = {}

    def rule(self, rule: WakeWord, at_s: float) -> WakeWord:
        """The word's rule now."""
        before = self._of.get(rule.label)
        if before is None or before.level == 0:
            return rule
        now = after_time(before, self._most_per_hour, at_s)
        self._keep(rule.label, before, now)
        return cautious(rule, now.level)

    def heard(self, label: str, at_s: float) -> None:
        """The word was reported."""
        if self._most_per_hour:
            before = self._of.get(label, Caution())
            self._keep(label, before, after_hit(before, self._most_per_hour, at_s))

    def _keep(self, label: str, before: Caution, now: Caution) -> None:
        self._of[label] = now
        if now.level > before.level:
            log.warning(
                "%r was heard more than %d times in an hour: its cutoff rises (level %d of %d)",
                *(label, self._most_per_hour, now.level, LEVELS),
            )
        elif now.level < before.level:
            log.info("%r: an hour was quiet, its cutoff falls (level %d)", label, now.level)


def _last_hour(caution: Caution, at_s: float) -> tuple[float, ...]:
    return tuple(heard for heard in caution.heard_s if at_s - heard < HOUR_S)
