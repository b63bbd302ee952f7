"""The rollout state machine: pure, one rollout at a time.

``pending -> canary -> full -> done``, and from canary or full to ``failed`` or ``aborted``; an
operator may take a rollout back from every state but pending. :func:`step` never performs I/O; it
returns what to issue. Whoever calls it stores the new state and the issued desired states in one
transaction, so a server killed at any moment resumes with both or neither.

Invariant: a device whose member is ``waiting`` has not been touched, ``offered`` and ``committed``
have a desired state naming the new release, ``failed`` and ``restored`` one naming the previous.
A restarted device is therefore never offered again what it has refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_sdk.contracts.fleet import ENDED, MemberStatus, RolloutState

_RUNNING = frozenset({RolloutState.CANARY, RolloutState.FULL})
_FINAL = frozenset({MemberStatus.COMMITTED, MemberStatus.FAILED, MemberStatus.RESTORED})


@dataclass(frozen=True, slots=True)
class Member:
    """One device of the rollout."""

    device_id: str
    canary: bool = False
    status: MemberStatus = MemberStatus.WAITING


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout as a value."""

    state: RolloutState
    members: tuple[Member, ...]
    max_failures: int = 0
    rollback_on_failure: bool = False
    reason: str = ""

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
class Abort:
    """The operator stops the rollout; what has committed stays."""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The operator wants the previous release on every device again."""


Event = Start | Committed | Failed | Abort | TakeBack


@dataclass(frozen=True, slots=True)
class Issue:
    """Issue a desired state to one device, with the next counter."""

    device_id: str
    what: Literal["offer", "restore"]
    """``offer`` names the rollout's release, ``restore`` the device's previous one."""


def plan(
    device_ids: Iterable[str],
    *,
    canary: int = 0,
    max_failures: int = 0,
    rollback_on_failure: bool = False,
) -> Rollout:
    """A pending rollout; the first ``canary`` devices go first, 0 means all at once."""
    members = tuple(
        Member(device_id, canary=index < canary) for index, device_id in enumerate(device_ids)
    )
    return Rollout(RolloutState.PENDING, members, max_failures, rollback_on_failure)


def step(rollout: Rollout, event: Event) -> tuple[Rollout, tuple[Issue, ...]]:
    """The rollout after ``event``, and what to issue. Events that do not apply change nothing."""
    match event:
        case Start() if rollout.state is RolloutState.PENDING:
            return _start(rollout)
        case Committed(device_id) if rollout.state in _RUNNING:
            return _advance(*_settle(rollout, device_id, MemberStatus.COMMITTED), "")
        case Failed(device_id, reason) if rollout.state in _RUNNING:
            return _advance(*_settle(rollout, device_id, MemberStatus.FAILED), reason)
        case Abort() if rollout.state not in ENDED:
            ended = replace(rollout, state=RolloutState.ABORTED, reason="stopped by the operator")
            return _restore(ended, {MemberStatus.OFFERED})
        case TakeBack() if rollout.state not in (RolloutState.PENDING, RolloutState.ROLLED_BACK):
            ended = replace(
                rollout, state=RolloutState.ROLLED_BACK, reason="taken back by the operator"
            )
            return _restore(ended, {MemberStatus.OFFERED, MemberStatus.COMMITTED})
    return rollout, ()


def _start(rollout: Rollout) -> tuple[Rollout, tuple[Issue, ...]]:
    staged = 0 < sum(member.canary for member in rollout.members) < len(rollout.members)
    started = replace(rollout, state=RolloutState.CANARY if staged else RolloutState.FULL)
    offered, issues = _offer(started, canaries_only=staged)
    after, more = _advance(offered, (), "")
    return after, (*issues, *more)


def _settle(
    rollout: Rollout, device_id: str, status: MemberStatus
) -> tuple[Rollout, tuple[Issue, ...]]:
    """Note a device's verdict; a device that failed is given its previous release at once."""
    member = next((m for m in rollout.members if m.device_id == device_id), None)
    if member is None or member.status is not MemberStatus.OFFERED:
        return rollout, ()
    settled = _with_status(rollout, {device_id}, status)
    if status is MemberStatus.FAILED:
        return settled, (Issue(device_id, "restore"),)
    return settled, ()


def _advance(
    rollout: Rollout, issues: Sequence[Issue], reason: str
) -> tuple[Rollout, tuple[Issue, ...]]:
    """Move on when a wave is over, or end when too many devices failed."""
    if rollout.failures > rollout.max_failures:
        failed = replace(rollout, state=RolloutState.FAILED, reason=reason)
        statuses = {MemberStatus.OFFERED}
        if rollout.rollback_on_failure:
            statuses.add(MemberStatus.COMMITTED)
        ended, restores = _restore(failed, statuses)
        return ended, (*issues, *restores)
    if rollout.state is RolloutState.CANARY and _all_final(rollout, canaries_only=True):
        rollout, offers = _offer(replace(rollout, state=RolloutState.FULL), canaries_only=False)
        return rollout, (*issues, *offers)
    if rollout.state is RolloutState.FULL and _all_final(rollout, canaries_only=False):
        rollout = replace(rollout, state=RolloutState.DONE)
    return rollout, tuple(issues)


def _all_final(rollout: Rollout, *, canaries_only: bool) -> bool:
    return all(m.status in _FINAL for m in rollout.members if m.canary or not canaries_only)


def _offer(rollout: Rollout, *, canaries_only: bool) -> tuple[Rollout, tuple[Issue, ...]]:
    chosen = [
        member.device_id
        for member in rollout.members
        if member.status is MemberStatus.WAITING and (member.canary or not canaries_only)
    ]
    offered = _with_status(rollout, set(chosen), MemberStatus.OFFERED)
    return offered, tuple(Issue(device_id, "offer") for device_id in chosen)


def _restore(rollout: Rollout, statuses: set[MemberStatus]) -> tuple[Rollout, tuple[Issue, ...]]:
    chosen = [member.device_id for member in rollout.members if member.status in statuses]
    restored = _with_status(rollout, set(chosen), MemberStatus.RESTORED)
    return restored, tuple(Issue(device_id, "restore") for device_id in chosen)


def _with_status(rollout: Rollout, device_ids: set[str], status: MemberStatus) -> Rollout:
    members = tuple(
        replace(member, status=status) if member.device_id in device_ids else member
        for member in rollout.members
    )
    return replace(rollout, members=members)
