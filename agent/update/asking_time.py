"""Asking the fleet for the time: a random number goes out, a signed time naming it comes back."""

from __future__ import annotations

import os

from agent.update.ports import Clock, Link
from edge_sdk.bundle.trust import verify_time
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import NONCE_BYTES, TimeRequest, TrustRoot

ASK_S = 10.0
"""An answer that has not come by then is asked for again; doubles with each attempt."""
ASK_MAX_S = 600.0
STALE_ANSWER_S = 60.0
"""An answer that took longer is not used: it would be late by that much."""
MAX_TIME_BYTES = 4096


class TimeAsking:
    """One open question at a time.

    Args:
        link: the broker.
        topics: the tenant's layout.
        device_id: who asks.
        clock: time.
    """

    def __init__(self, link: Link, topics: Topics, device_id: str, clock: Clock) -> None:
        self._link, self._topics, self._device_id = link, topics, device_id
        self._clock = clock
        self._nonce = b""
        self._asked_at = 0.0
        self._attempts = 0

    def ask(self, attempts: int) -> None:
        """Ask anew; earlier questions are void."""
        self._asked_at, self._attempts = self._clock.monotonic(), attempts
        self._nonce = os.urandom(NONCE_BYTES)
        request = TimeRequest(device_id=self._device_id, nonce=self._nonce)
        self._link.publish(self._topics.ask_time(self._device_id), encode(request))

    def tick(self) -> None:
        """Ask again when an answer is overdue."""
        if self._clock.monotonic() >= self._asked_at + pause_s(self._attempts):
            self.ask(self._attempts + 1)

    def on_answer(self, payload: bytes, keys: TrustRoot) -> float | None:
        """The time, if this answers the open question, and soon enough.

        Raises:
            TrustError: no fleet key has signed it.
            ContractError: it is malformed.
        """
        late = self._clock.monotonic() - self._asked_at > STALE_ANSWER_S
        if not payload or len(payload) > MAX_TIME_BYTES or not self._nonce or late:
            return None
        answer = verify_time(payload, keys)
        if (answer.device_id, answer.nonce) != (self._device_id, self._nonce):
            return None
        self._nonce = b""
        return answer.at


def pause_s(attempts: int) -> float:
    """How long to wait for what was asked for so many times."""
    return min(ASK_S * 2.0 ** min(attempts, 10), ASK_MAX_S)
