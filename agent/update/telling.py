"""What the updater says about itself: one log line and one report per step, no more."""

from __future__ import annotations

import logging

from msgspec.structs import asdict, replace

from agent.update.events import Tell
from agent.update.ports import Clock, Report
from edge_sdk.contracts.update import Desired, Phase, UpdateCosts, UpdateStatus

log = logging.getLogger(__name__)

NOTICE_INTERVAL_S = 60.0
"""Messages that are not believed are told about this often per error code."""


class Teller:
    """Makes statuses, leaves out repetitions, and remembers the device's last word.

    Args:
        device_id: who speaks.
        clock: time.
        report: receives every status.
    """

    def __init__(self, device_id: str, clock: Clock, report: Report) -> None:
        self._device_id, self._clock, self._report = device_id, clock, report
        self._connected = False
        self._noticed: dict[str, float] = {}
        self._logged: tuple[str, ...] = ()
        self.last: UpdateStatus | None = None
        """Where the present deployment was last said to stand."""

    def on_connected(self) -> None:
        """Repeat the last status, which may have been lost."""
        self._connected = True
        if self.last is not None:
            self._report(self.last)

    def on_disconnected(self) -> None:
        """Nobody listens."""
        self._connected = False

    def tell(self, tell: Tell, wish: Desired | None) -> None:
        """Report a step of ``tell.desired``, which is remembered if it is the present ``wish``."""
        status = self._status(tell.phase, tell.code, tell.detail, tell.desired, tell.costs)
        if tell.desired == wish:
            self._say_once(status)
        else:
            self._log(status)
            self._report(status)

    def progress(self, wish: Desired, phase: Phase, detail: str, costs: UpdateCosts) -> None:
        """How far it is; while offline this is of no use to anybody."""
        if self._connected:
            self._say_once(self._status(phase, "", detail, wish, costs))

    def notice(self, code: str, detail: str, what: str = "not believed") -> None:
        """Tell about a message that was not believed: anybody may have sent it, and often.

        Or about anything else that belongs to no deployment.
        """
        now = self._clock.monotonic()
        if now - self._noticed.get(code, -NOTICE_INTERVAL_S) < NOTICE_INTERVAL_S:
            return
        self._noticed[code] = now
        log.warning("%s: %s: %s", what, code, detail)
        self._report(self._status(Phase.REJECTED, code, detail, None, UpdateCosts()))

    def _say_once(self, status: UpdateStatus) -> None:
        if self.last is not None and _moved(self.last, status) == status:
            return
        self.last = status
        self._log(status)
        self._report(status)

    def _log(self, status: UpdateStatus) -> None:
        """Once per step; progress within it would fill the log."""
        step = (status.deployment, status.phase, status.code, status.detail)
        if step != self._logged:
            self._logged = step
            log.info("update %s: %s %s", status.version, status.phase, status.detail)

    def _status(
        self, phase: Phase, code: str, detail: str, wish: Desired | None, costs: UpdateCosts
    ) -> UpdateStatus:
        return UpdateStatus(
            device_id=self._device_id,
            deployment=wish.deployment if wish is not None else "",
            release=wish.release if wish is not None else "",
            version=wish.version if wish is not None else "",
            counter=wish.counter if wish is not None else 0,
            phase=phase,
            at=self._clock.now(),
            code=code,
            detail=detail,
            **asdict(costs),
        )


def _moved(status: UpdateStatus, now: UpdateStatus) -> UpdateStatus:
    """The same word at another time: that alone is nothing to tell."""
    return replace(status, at=now.at, seconds_in=now.seconds_in, bytes_written=now.bytes_written)
