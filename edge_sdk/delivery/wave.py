"""A wave: one publication of a blob's chunks for many devices, paced by what they have seen.

A broker drops what it cannot queue for a slow subscriber, so the sender never gets more than a
window ahead of the slowest rider. A few laggards do not hold up the others: they are told to leave,
and fetch the rest chunk by chunk at their own pace. Nothing relies on a wave; whatever a rider has
missed when it is over, it fetches in the usual way.

Pure: time and credit come in, what is to be published goes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias
from zlib import crc32

SPAN = 4
"""Chunks of one message, where broker and all riders take as many: what a message costs a broker
beyond its bytes is the same for one chunk and for four."""
CREDIT_EVERY = 4 * SPAN
"""A rider says how far it is after so many chunks: each word is a message in and one out. Riders do
so at places of their own, so that after each message some do: the wave keeps to their pace."""
WINDOW = CREDIT_EVERY + 2 * SPAN - 1
"""Chunks that may go to a rider since its last word. Where all are equally quick two messages are
on their way to each, for those who spoke longest ago get no more: with 2 GB in a thousand sockets
the kernel of a 24 GB machine began to drop and send again."""
WORD_S = 3.0
"""A rider that has not said how far it is for so long says so: it is slow, or a word was lost."""
MIN_RIDERS = 3
"""Fewer are served by the usual way as well."""
MAX_RIDERS = 100_000
LAG_S = 5.0
"""A minority that has held up the others for this long is told to leave."""
STALL_S = 10.0
"""So is anybody who has held up the wave for this long."""


def next_word(device_id: str, seen: int, every: int) -> int:
    """When so many chunks have gone by, a rider that has seen fewer says how far it is.

    Args:
        device_id: who; gives it its place among others.
        seen: chunks that have gone by.
        every: chunks between two words.
    """
    place = SPAN * (crc32(device_id.encode()) % max(every // SPAN, 1))
    return seen + every - (seen - place) % every


@dataclass(frozen=True, slots=True)
class Send:
    """Publish these chunks in one message."""

    index: int
    """The first of them."""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell these riders to leave."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """Tell everybody that the wave is over."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before this moment, unless credit comes."""

    until_s: float


Action: TypeAlias = Send | Leave | Over | Wait


@dataclass
class Wave:
    """The wave of one blob.

    Args:
        chunks: of the blob.
        leaves_at: until then riders gather, seconds on the caller's clock.
        span: chunks that the broker takes in one message; in the end no more than every rider does.
    """

    chunks: int
    leaves_at: float
    span: int = 1
    seen: dict[str, int] = field(default_factory=dict)
    """What each rider has seen go by; at first as if it had spoken at its place before that."""
    sent: int = 0
    over: bool = False
    _blocked_since: float | None = None

    def credit(self, device_id: str, seen: int, span: int = 1) -> None:
        """A device joins, or has come further; once the wave has left nobody gets on."""
        known = self.seen.get(device_id)
        if known is not None:
            self.seen[device_id] = max(known, min(seen, self.sent)) if seen else known
        elif not self.sent and len(self.seen) < MAX_RIDERS:
            self.seen[device_id] = next_word(device_id, 0, CREDIT_EVERY) - CREDIT_EVERY
            self.span = min(self.span, span)

    def step(self, now_s: float) -> Action:
        """What to do next; the caller does it and asks again."""
        if now_s < self.leaves_at and not self.sent:
            return Wait(self.leaves_at)
        too_few = not self.sent and len(self.seen) < MIN_RIDERS
        if self.over or too_few or not self.seen or self.sent == self.chunks:
            self.over = True
            return Over()
        count = min(self.span, self.chunks - self.sent)
        ahead = self.sent + count
        slow = [name for name, seen in self.seen.items() if ahead - seen > WINDOW]
        if slow:
            return self._blocked(slow, now_s)
        self._blocked_since = None
        self.sent += count
        return Send(self.sent - count, count)

    def _blocked(self, slow: list[str], now_s: float) -> Action:
        if self._blocked_since is None:
            self._blocked_since = now_s
        minority = 2 * len(slow) < len(self.seen)
        until = self._blocked_since + (LAG_S if minority else STALL_S)
        if now_s < until:
            return Wait(until)
        for name in slow:
            del self.seen[name]
        self._blocked_since = None
        return Leave(tuple(slow))
