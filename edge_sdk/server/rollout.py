"""The rollout state machine: pure, one rollout at a time.

``pending -> canary -> full -> done``, and from canary or full to ``failed`` or ``aborted``; an
operator may take a rollout back from every state but pending. :func:`step` never performs I/O; it
returns what to issue. Whoever calls it stores the new state and the issued desired states in one
transaction, so a server killed at any moment resumes with both or neither.

A rollout that runs can be paused. Devices that have begun to fetch go on to their verdict, which
counts as ever: too many failures end a paused rollout too. Offers that nobody has begun with are
recalled, no other is made, and canaries that have all committed promote nothing, however long it
takes. Once resumed it goes on from there.

Invariant: a device whose member is ``waiting`` has not been touched, or was recalled and has the
desired state of one that was restored. ``offered`` and ``committed`` have a desired state naming
the new release, ``failed`` and ``restored`` one naming the previous, or none where there is no
previous one. ``kept`` names the new release if the device had committed it, and nothing otherwise.
A restarted device is therefore never offered again what it has refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_sdk.contracts.fleet import ENDED, MemberStatus, RolloutState
from edge_sdk.server.pacing import EVERYBODY

_RUNNING = frozenset({RolloutState.CANARY, RolloutState.FULL})
_FINAL = frozenset(MemberStatus) - {MemberStatus.WAITING, MemberStatus.OFFERED}


@dataclass(frozen=True, slots=True)
class Member:
    """One device of the rollout."""

    device_id: str
    canary: bool = False
    status: MemberStatus = MemberStatus.WAITING
    has_previous: bool = True
    """Whether there is a release it can be given back."""
    begun: bool = False
    """Whether it has begun to fetch what it is offered."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout as a value."""

    state: RolloutState
    members: tuple[Member, ...]
    max_failures: int = 0
    rollback_on_failure: bool = False
    reason: str = ""
    paused: bool = False

    @property
    def failures(self) -> int:
        """Devices that refused or rolled back."""
        return sum(member.status is MemberStatus.FAILED for member in self.members)


@dataclass(frozen=True, slots=True)
class Start:
    """Begin."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A device runs the new release for good."""

    device_id: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A device rejected the release or rolled it back."""

    device_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """The operator wants no further device to begin."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The operator wants a paused rollout to go on."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed, so that there may be room for further offers."""


@dataclass(frozen=True, slots=True)
class Abort:
    """The operator stops the rollout; what has committed stays."""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The operator wants the previous release on every device again."""


Event = Start | Committed | Failed | Pause | Resume | Tick | Abort | TakeBack


@dataclass(frozen=True, slots=True)
class Issue:
    """Issue a desired state to one device, with the next counter."""

    device_id: str
    what: Literal["offer", "restore", "withdraw", "recall"]
    """``offer`` names the rollout's release, ``restore`` the device's previous one, ``withdraw``
    none: the device has nothing to go back to. ``recall`` is either of the two, for now."""


def plan(
    device_ids: Iterable[str],
    *,
    canary: int = 0,
    max_failures: int = 0,
    rollback_on_failure: bool = False,
    without_previous: Collection[str] = (),
) -> Rollout:
    """A pending rollout; the first ``canary`` devices go first, 0 means all at once.

    ``without_previous`` are those of the devices that have nothing to go back to.
    """
    members = tuple(
        Member(device_id, canary=index < canary, has_previous=device_id not in without_previous)
        for index, device_id in enumerate(device_ids)
    )
    return Rollout(RolloutState.PENDING, members, max_failures, rollback_on_failure)


def step(
    rollout: Rollout, event: Event, room: int = EVERYBODY
) -> tuple[Rollout, tuple[Issue, ...]]:
    """The rollout after ``event``, and what to issue. Events that do not apply change nothing.

    Args:
        rollout: before it.
        event: what has happened.
        room: so many devices may be offered the release now; the others wait for a :class:`Tick`.
    """
    match event:
        case Start() if rollout.state is RolloutState.PENDING:
            return _start(rollout, room)
        case Committed() if rollout.state in _RUNNING:
            return _advance(*_settle(rollout, event), "", room)
        case Failed() if rollout.state in _RUNNING:
            return _advance(*_settle(rollout, event), event.reason, room)
        case Tick() if rollout.state in _RUNNING:
            return _advance(rollout, (), "", room)
        case Pause() if rollout.state in _RUNNING and not rollout.paused:
            return _recall(replace(rollout, paused=True))
        case Resume() if rollout.state in _RUNNING and rollout.paused:
            return _advance(replace(rollout, paused=False), (), "", room)
        case Abort() if rollout.state not in ENDED:
            ended = _ended(rollout, RolloutState.ABORTED, "stopped by the operator")
            return _restore(ended, {MemberStatus.OFFERED})
        case TakeBack() if rollout.state not in (RolloutState.PENDING, RolloutState.ROLLED_BACK):
            ended = _ended(rollout, RolloutState.ROLLED_BACK, "taken back by the operator")
            return _restore(ended, {MemberStatus.OFFERED, MemberStatus.COMMITTED})
    return rollout, ()


def settle(member: Member, verdict: Committed | Failed) -> tuple[Member, tuple[Issue, ...]]:
    """An offered device after its verdict; one that failed is given its previous release at once.

    A device may also fail after it has committed, when the release degrades or crash-loops in
    service. Any other second verdict changes nothing.
    """
    if not may_settle(member.status, verdict):
        return member, ()
    if isinstance(verdict, Committed):
        return replace(member, status=MemberStatus.COMMITTED), ()
    return replace(member, status=MemberStatus.FAILED), (_way_back(member),)


def may_settle(status: MemberStatus, verdict: Committed | Failed) -> bool:
    """Whether a verdict is news of a device that stands there."""
    late = status is MemberStatus.COMMITTED and isinstance(verdict, Failed)
    return status is MemberStatus.OFFERED or late


def is_quiet(
    verdict: Committed | Failed, *, others_offered: bool, failures: int, max_failures: int
) -> bool:
    """Whether :func:`step` would do no more than :func:`settle` the device of the verdict.

    Lets a large rollout be stepped without loading all of it.

    Args:
        verdict: of a device that it settles.
        others_offered: whether another device is: its wave is not over then.
        failures: devices that failed before.
        max_failures: the rollout's limit.
    """
    return others_offered and failures + isinstance(verdict, Failed) <= max_failures


def _start(rollout: Rollout, room: int) -> tuple[Rollout, tuple[Issue, ...]]:
    staged = 0 < sum(member.canary for member in rollout.members) < len(rollout.members)
    state = RolloutState.CANARY if staged else RolloutState.FULL
    return _advance(replace(rollout, state=state), (), "", room)


def _settle(rollout: Rollout, verdict: Committed | Failed) -> tuple[Rollout, tuple[Issue, ...]]:
    """The rollout with one device's verdict noted."""
    member = next((m for m in rollout.members if m.device_id == verdict.device_id), None)
    if member is None:
        return rollout, ()
    settled, issues = settle(member, verdict)
    return _with_status(rollout, {member.device_id}, settled.status), issues


def _advance(
    rollout: Rollout, issues: Sequence[Issue], reason: str, room: int
) -> tuple[Rollout, tuple[Issue, ...]]:
    """Offer what may be offered, or end when all is done or too many devices failed."""
    if rollout.failures > rollout.max_failures:
        failed = _ended(rollout, RolloutState.FAILED, reason)
        statuses = {MemberStatus.OFFERED}
        if rollout.rollback_on_failure:
            statuses.add(MemberStatus.COMMITTED)
        ended, restores = _restore(failed, statuses)
        return ended, (*issues, *restores)
    if rollout.state is RolloutState.FULL and _all_final(rollout, canaries_only=False):
        return _ended(rollout, RolloutState.DONE, ""), tuple(issues)
    if rollout.paused:
        return rollout, tuple(issues)
    if rollout.state is RolloutState.CANARY and _all_final(rollout, canaries_only=True):
        rollout = replace(rollout, state=RolloutState.FULL)
    rollout, offers = _offer(rollout, room)
    return rollout, (*issues, *offers)


def _ended(rollout: Rollout, state: RolloutState, reason: str) -> Rollout:
    return replace(rollout, state=state, reason=reason, paused=False)


def _all_final(rollout: Rollout, *, canaries_only: bool) -> bool:
    return all(m.status in _FINAL for m in rollout.members if m.canary or not canaries_only)


def _offer(rollout: Rollout, room: int) -> tuple[Rollout, tuple[Issue, ...]]:
    chosen = [
        member.device_id
        for member in rollout.members
        if member.status is MemberStatus.WAITING
        and (member.canary or rollout.state is RolloutState.FULL)
    ][:room]
    offered = _with_status(rollout, set(chosen), MemberStatus.OFFERED)
    return offered, tuple(Issue(device_id, "offer") for device_id in chosen)


def _recall(rollout: Rollout) -> tuple[Rollout, tuple[Issue, ...]]:
    """Take back the offers that nobody has begun with."""
    chosen = [
        member.device_id
        for member in rollout.members
        if member.status is MemberStatus.OFFERED and not member.begun
    ]
    recalled = _with_status(rollout, set(chosen), MemberStatus.WAITING)
    return recalled, tuple(Issue(device_id, "recall") for device_id in chosen)


def _restore(rollout: Rollout, statuses: set[MemberStatus]) -> tuple[Rollout, tuple[Issue, ...]]:
    """Give the previous release back; who has none keeps what it has committed."""
    chosen = [member for member in rollout.members if member.status in statuses]
    back = {member.device_id for member in chosen if member.has_previous}
    kept = {member.device_id for member in chosen if not member.has_previous}
    rollout = _with_status(rollout, back, MemberStatus.RESTORED)
    issues = tuple(
        _way_back(member)
        for member in chosen
        if member.has_previous or member.status is not MemberStatus.COMMITTED
    )
    return _with_status(rollout, kept, MemberStatus.KEPT), issues


def _way_back(member: Member) -> Issue:
    return Issue(member.device_id, "restore" if member.has_previous else "withdraw")


def _with_status(rollout: Rollout, device_ids: set[str], status: MemberStatus) -> Rollout:
    members = tuple(
        replace(member, status=status) if member.device_id in device_ids else member
        for member in rollout.members
    )
    return replace(rollout, members=members)
