"""The governor at work on one device: the release it governs, its pin, and how long it was where.

The governor decides and remembers nothing but its state; this holds that state, changes governor
with the release, and keeps the account that telemetry and ``edge-agent status`` show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec

from agent.adapt.arbiter import Contender, arbitrate
from agent.adapt.governor import Decision, Governor, GovernorState
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.sense.sample import PressureSample
from edge_sdk.contracts.telemetry import LadderPosition
from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean


class Recorder(Protocol):
    """Who keeps a trace; see :class:`agent.adapt.trace.TraceFile`."""

    def begin(self, policy: GovernorPolicy, ladder: Sequence[Rung]) -> None:
        """A release begins to be governed, or the policy has changed."""

    def add(self, now: float, sample: PressureSample, decision: Decision) -> None:
        """One tick."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass(slots=True)
class _Governed:
    """One release under its governor."""

    digest: str
    governor: Governor
    state: GovernorState
    at: float
    """Monotonic time up to which ``seconds`` counts."""
    decision: Decision | None = None
    seconds: dict[int, float] = field(default_factory=dict)
    """Time spent at each rung so far."""


class Steering:
    """Where the serving release stands on its ladder.

    Args:
        policy: fitted to the device; its pin can be changed by :meth:`pin`.
        recorder: told everything that is decided; None for nobody.
    """

    def __init__(self, policy: GovernorPolicy, recorder: Recorder | None = None) -> None:
        self._policy = policy
        self._recorder = recorder
        self._governed: _Governed | None = None

    @property
    def decision(self) -> Decision | None:
        """The latest decision for the serving release."""
        return None if self._governed is None else self._governed.decision

    def govern(
        self, digest: str, ladder: Callable[[], Sequence[Rung]], index: int, now: float
    ) -> None:
        """Take a release over; one that is governed already keeps its state.

        Args:
            digest: of its manifest.
            ladder: its rungs here; asked for a new release only.
            index: where its worker stands.
            now: monotonic seconds.
        """
        if self._governed is not None and self._governed.digest == digest:
            return
        governor = Governor(self._policy, ladder())
        self._governed = _Governed(digest, governor, governor.start(now, index), now)
        self._tell_recorder(governor)

    def release(self) -> None:
        """Nothing serves any more."""
        self._governed = None

    def decide(self, sample: PressureSample, now: float) -> int | None:
        """One tick; the rung the worker must be told to go to, None when it stands right."""
        governed = self._governed
        if governed is None:
            return None
        return self._take(
            governed, sample, governed.governor.decide(governed.state, sample, now), now
        )

    def contender(self, sample: PressureSample, priority: int) -> Contender | None:
        """What the arbiter needs to decide in place of :meth:`decide`; None without a release."""
        governed = self._governed
        if governed is None:
            return None
        return Contender(governed.governor, governed.state, sample, priority)

    def take(
        self, sample: PressureSample, outcome: tuple[GovernorState, Decision], now: float
    ) -> int | None:
        """The arbiter's tick on :meth:`contender`; returns as :meth:`decide`."""
        governed = self._governed
        return None if governed is None else self._take(governed, sample, outcome, now)

    def _take(
        self,
        governed: _Governed,
        sample: PressureSample,
        outcome: tuple[GovernorState, Decision],
        now: float,
    ) -> int | None:
        first = governed.decision is None
        _count(governed, now)
        governed.state, decision = outcome
        governed.decision = decision
        if self._recorder is not None:
            self._recorder.add(now, sample, decision)
        return decision.index if decision.changed or first else None

    def refused(self, index: int, now: float) -> None:
        """The worker could not move and stands at ``index``; a dwell later it may try again."""
        if self._governed is not None:
            _count(self._governed, now)
            self._governed.state = replace(self._governed.state, index=index, since=now)

    def pin(self, index: int | None) -> None:
        """Hold a rung until told otherwise, or with None let the governor move again.

        The configuration's own pin comes back when the agent starts anew.
        """
        self._policy = msgspec.structs.replace(self._policy, pin=index)
        if self._governed is not None:
            governor = Governor(self._policy, self._governed.governor.ladder)
            self._governed.governor = governor
            self._tell_recorder(governor)

    def rung(self, name: str) -> int:
        """The rung that a person means, by its point's id or its number from 0.

        Raises:
            UsageError: ``usage.unknown-point``.
        """
        ladder = () if self._governed is None else self._governed.governor.ladder
        names = [rung.point for rung in ladder]
        if name in names:
            return names.index(name)
        if name.isdecimal() and len(name) < 6 and int(name) < len(names):
            return int(name)
        here = f"It has {', '.join(names)}." if names else "No release serves now."
        raise UsageError(
            "unknown-point",
            f"The release that serves has no operating point {name[:200]!r}. {here}",
            did_you_mean(name[:200], names) or "`edge-agent status` shows the ladder.",
        )

    def close(self) -> None:
        """The agent ends."""
        if self._recorder is not None:
            self._recorder.close()

    def point(self, digest: str, index: int) -> str:
        """Id of a rung of the governed release; empty for one that is just being replaced."""
        if self._governed is None or self._governed.digest != digest:
            return ""
        ladder = self._governed.governor.ladder
        return ladder[index].point if 0 <= index < len(ladder) else ""

    def position(self, epoch_s: float) -> LadderPosition | None:
        """The latest decision and the account as telemetry carries them.

        Args:
            epoch_s: the wall clock at the time of the latest decision.
        """
        governed = self._governed
        if governed is None or governed.decision is None:
            return None
        position = governed.decision.position(epoch_s)
        return msgspec.structs.replace(position, seconds_at=self._seconds(governed))

    def describe(self) -> dict[str, Any]:
        """What ``edge-agent status`` shows of the governor."""
        governed = self._governed
        if governed is None:
            return {"pin": self._policy.pin}
        readings = governed.governor.readings(governed.state)
        return {
            "pin": self._policy.pin,
            "enabled": self._policy.enabled,
            "ladder": [rung.point for rung in governed.governor.ladder],
            "lowest": governed.governor.ladder[governed.governor.bottom].point,
            "seconds_at": self._seconds(governed),
            "signals": {
                reading.name: {
                    "value": round(reading.value, 3),
                    "leave": round(reading.band.leave, 3),
                    "enter": round(reading.band.enter, 3),
                }
                for reading in readings
            },
        }

    def _seconds(self, governed: _Governed) -> dict[str, float]:
        ladder = governed.governor.ladder
        return {ladder[at].point: round(s, 1) for at, s in sorted(governed.seconds.items())}

    def _tell_recorder(self, governor: Governor) -> None:
        if self._recorder is not None:
            self._recorder.begin(governor.policy, governor.ladder)


@dataclass(frozen=True, slots=True)
class Seat:
    """One of several pipelines at a tick."""

    steering: Steering
    priority: int
    sample: PressureSample


def decide_together(seats: Sequence[Seat], now: float) -> list[int | None]:
    """One tick of all pipelines of a device: :meth:`Steering.decide` for each.

    Only two or more that serve need the arbiter.
    """
    found = [seat.steering.contender(seat.sample, seat.priority) for seat in seats]
    contenders = [contender for contender in found if contender is not None]
    if len(contenders) < 2:
        return [seat.steering.decide(seat.sample, now) for seat in seats]
    outcomes = iter(arbitrate(contenders, now))
    return [
        None if contender is None else seat.steering.take(seat.sample, next(outcomes), now)
        for seat, contender in zip(seats, found, strict=True)
    ]


def _count(governed: _Governed, now: float) -> None:
    """Book the time since the last booking to the rung stood on."""
    index = governed.state.index
    elapsed_s = max(0.0, now - governed.at)
    governed.seconds[index] = governed.seconds.get(index, 0.0) + elapsed_s
    governed.at = max(now, governed.at)
