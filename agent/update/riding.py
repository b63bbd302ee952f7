"""Riding waves: chunks that the server publishes once for many devices.

A blob of which most is missing is announced, and what comes is taken for a while. A ride ends with
the wave, when the server says so, when nothing comes any more, and with the connection; what is
missing then is fetched as any other chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from agent.update.ports import Clock, Link
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.delivery import BrokerReport, WaveCredit, WaveNotice
from edge_sdk.contracts.topics import Topics
from edge_sdk.delivery.wave import SPAN, STALL_S, WORD_S, next_word
from edge_sdk.errors import ContractError

log = logging.getLogger(__name__)

MIN_CHUNKS = 8
"""Smaller transfers are over before a wave would begin."""
DEPARTURE_S = 5.0
"""A wave that has brought nothing so long after the gathering does not come."""
SILENCE_S = STALL_S + 2.0
"""One that brings nothing for this long is over; it may wait for a slow rider before that."""
MAX_NOTICE_BYTES = 1 << 20


@dataclass(slots=True)
class _Ride:
    missing: dict[int, None]
    """In the order in which they would be fetched otherwise."""
    deadline: float
    every: int
    """Chunks between two words to the server."""
    due: int
    """After how many to tell the server."""
    seen: int = 0
    """What has gone by."""
    told_at: float = 0.0


class Riding:
    """Every ride of a device.

    Args:
        link: the broker.
        topics: the tenant's layout.
        device_id: who rides.
        clock: time.
    """

    def __init__(self, link: Link, topics: Topics, device_id: str, clock: Clock) -> None:
        self._link, self._topics, self._device_id = link, topics, device_id
        self._clock = clock
        self._rides: dict[str, _Ride] = {}
        self._ended: list[tuple[str, int]] = []

    @property
    def under_way(self) -> bool:
        """Whether anything may still come, or has not been taken back."""
        return bool(self._rides or self._ended)

    def board(self, digest: str, indexes: Iterable[int], report: BrokerReport) -> None:
        """Announce a blob's missing chunks."""
        deadline = self._clock.monotonic() + report.gather_s + DEPARTURE_S
        every = report.credit_every
        due = next_word(self._device_id, 0, every)
        ride = _Ride(dict.fromkeys(indexes), deadline, every, due)
        self._rides[digest] = ride
        self._link.subscribe(self._topics.wave_riders(digest), 0)
        self._tell(digest, ride)

    def wants(self, digest: str, index: int) -> bool:
        """Whether a chunk that comes by a wave is still missing."""
        ride = self._rides.get(digest)
        return ride is not None and index in ride.missing

    def remaining(self, digest: str) -> int:
        """Chunks of one blob that a ride has yet to bring."""
        ride = self._rides.get(digest)
        left = len(ride.missing) if ride is not None else 0
        return left + sum(1 for known, _ in self._ended if known == digest)

    def passed(self, digest: str, index: int, *, taken: bool) -> None:
        """A chunk of a wave has come, wanted or not, whole or not."""
        ride = self._rides.get(digest)
        if ride is None:
            return
        if taken:
            ride.missing.pop(index, None)
        ride.deadline = self._clock.monotonic() + SILENCE_S
        ride.seen = max(ride.seen, index + 1)
        if not ride.missing:
            self._leave(digest)
        elif ride.seen >= ride.due:
            ride.due = next_word(self._device_id, ride.seen, ride.every)
            self._tell(digest, ride)

    def on_notice(self, digest: str, payload: bytes) -> None:
        """What the server tells its riders."""
        if digest not in self._rides or len(payload) > MAX_NOTICE_BYTES:
            return
        try:
            notice = decode(payload, WaveNotice, "a wave's notice")
        except ContractError as error:
            log.warning("%s", error.cause)
            return
        if notice.over or self._device_id in notice.leave:
            self._leave(digest)

    def tick(self) -> None:
        """Leave what brings nothing any more, and say now and then how far the others are."""
        now = self._clock.monotonic()
        for digest, ride in list(self._rides.items()):
            if ride.deadline <= now:
                self._leave(digest)
            elif ride.seen and ride.told_at + WORD_S <= now:
                self._tell(digest, ride)

    def leave_all(self) -> None:
        """End every ride."""
        for digest in list(self._rides):
            self._leave(digest)

    def take_back(self) -> list[tuple[str, int]]:
        """Chunks that rides which have ended did not bring."""
        ended, self._ended = self._ended, []
        return ended

    def _leave(self, digest: str) -> None:
        ride = self._rides.pop(digest)
        self._link.unsubscribe(self._topics.wave_riders(digest))
        self._ended.extend((digest, index) for index in ride.missing)

    def _tell(self, digest: str, ride: _Ride) -> None:
        ride.told_at, seen = self._clock.monotonic(), ride.seen
        credit = WaveCredit(device_id=self._device_id, digest=digest, seen=seen, span=SPAN)
        self._link.publish(self._topics.credit(self._device_id), encode(credit), qos=0)
