"""Carrying out what the rollout state machine decides: signed desired states, transactionally."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from edge_sdk.bundle.signing import SigningKey, sign
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import DESIRED_TYPE
from edge_sdk.contracts.fleet import ENDED, MemberStatus
from edge_sdk.contracts.update import Desired, TrialPolicy
from edge_sdk.server import records, rollout_records
from edge_sdk.server.db.schema import releases
from edge_sdk.server.depot import Depot
from edge_sdk.server.metadata import MetadataShop
from edge_sdk.server.records import Row
from edge_sdk.server.rollout import (
    Committed,
    Event,
    Failed,
    Issue,
    Rollout,
    is_quiet,
    may_settle,
    settle,
    step,
)

RESTORE_SUFFIX = "-restore"
"""Added to a rollout's id to name the deployment that takes it back on a device."""

NOTHING_BEFORE = "nothing to go back to"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a transaction means for the broker once it is committed."""

    offered: tuple[str, ...] = ()
    """Devices whose desired state names a release that is only now being seeded."""
    restored: tuple[str, ...] = ()
    """Devices whose desired state names a release they have run before, or none any more."""
    ended: bool = False
    """A rollout has ended, so chunks may have become unnecessary."""
    seeded: tuple[str, ...] = ()
    """Envelope digests of releases whose chunks must be on the broker from now on."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Applies events to stored rollouts.

    Args:
        key: the fleet's key; signs every desired state.
        depot: where the envelopes that desired states refer to lie.
        now: seconds since the epoch.
        metadata: what the publisher has said exists, where the fleet goes by TUF.
        local: the clock on the wall, for maintenance windows.
    """

    key: SigningKey
    depot: Depot
    now: Callable[[], float]
    metadata: MetadataShop | None = None
    local: Callable[[float], time.struct_time] = time.localtime

    def apply(self, connection: sa.Connection, row: Row, event: Event) -> Changes:
        """Apply ``event`` to the stored rollout ``row`` and issue what follows from it."""
        if isinstance(event, Committed | Failed):
            return self._verdict(connection, row, event)
        return self._step(connection, row, event)

    def waits(self, connection: sa.Connection, row: Row) -> str:
        """Why a rollout offers its release to nobody at this moment, though some wait."""
        if row["paused"] or not rollout_records.is_running(row):
            return ""
        now = self.now()
        waits = rollout_records.pacing_value(row).waits(now, self.local(now))
        return waits if waits and rollout_records.somebody_waits(connection, row) else ""

    def due(self, connection: sa.Connection, row: Row) -> bool:
        """Whether time alone has made room for further offers."""
        pacing, now = rollout_records.pacing_value(row), self.now()
        if row["paused"] or not pacing.bounded or not pacing.room(now, self.local(now)):
            return False
        return rollout_records.somebody_waits(connection, row)

    def _verdict(self, connection: sa.Connection, row: Row, verdict: Committed | Failed) -> Changes:
        """Most verdicts concern one device alone, and then no other is loaded."""
        number = row["number"]
        stored = rollout_records.member_row(connection, number, verdict.device_id)
        if stored is None or not rollout_records.is_running(row):
            return Changes()
        if not may_settle(MemberStatus(stored["status"]), verdict):
            return Changes()
        quiet = is_quiet(
            verdict,
            others_offered=rollout_records.offered_besides(connection, number, verdict.device_id),
            failures=rollout_records.failures(connection, number),
            max_failures=row["max_failures"],
        )
        if not quiet:
            return self._step(connection, row, verdict)
        settled, issues = settle(rollout_records.member_value(stored), verdict)
        rollout_records.touch_rollout(connection, number, self.now())
        rollout_records.update_member(connection, number, settled.device_id, status=settled.status)
        for issue in issues:
            self._issue(connection, row, issue, stored["previous_id"])
        return Changes(restored=tuple(issue.device_id for issue in issues))

    def _step(self, connection: sa.Connection, row: Row, event: Event) -> Changes:
        members = rollout_records.member_rows(connection, row["number"])
        before = rollout_records.rollout_value(row, members)
        pacing, now = rollout_records.pacing_value(row), self.now()
        after, issues = step(before, event, pacing.room(now, self.local(now)))
        if after == before and not issues:
            return Changes()
        rollout_records.save_rollout(connection, row["number"], before, after, now)
        next_at = pacing.spent(sum(issue.what == "offer" for issue in issues), now)
        rollout_records.touch_rollout(connection, row["number"], now, next_offer_at=next_at)
        previous = {member["device_id"]: member["previous_id"] for member in members}
        for issue in issues:
            target = row["release_id"] if issue.what == "offer" else previous[issue.device_id]
            self._issue(connection, row, issue, target)
        self._note_kept(connection, row, before, after)
        self._note_pause(connection, row, before, after)
        self._note(connection, row, before, after)
        return _changes(before, after, issues)

    def _issue(
        self, connection: sa.Connection, row: Row, issue: Issue, release_id: int | None
    ) -> None:
        """Store the device's next desired state; counters only ever grow."""
        last = records.desired_row(connection, issue.device_id)
        counter = (last["counter"] if last else 0) + 1
        restore = issue.what != "offer"
        deployment = row["id"] + (RESTORE_SUFFIX if restore else "")
        release = records.release_by(connection, releases.c.id == release_id)
        envelope = b""
        if release is not None:
            trial = TrialPolicy() if restore else rollout_records.trial_policy(row)
            device = records.device_row(connection, issue.device_id)
            path, targets_version = self._target(release)
            desired = Desired(
                device_id=issue.device_id,
                deployment=deployment,
                counter=counter,
                release=release["name"],
                version=release["version"],
                manifest=self.depot.envelope_ref(release["digest"]),
                trial=trial,
                new_contract=restore or row["new_contract"],
                windows=() if restore else tuple(json.loads(row["windows"])),
                max_bytes_per_s=row["rate_kib_s"] * 1024,
                issued_at=self.now(),
                profile=device["profile"] if device else "",
                target=path,
                targets_version=targets_version,
            )
            envelope = encode(sign(DESIRED_TYPE, encode(desired), self.key))
        records.save_desired(
            connection,
            issue.device_id,
            counter=counter,
            deployment=deployment,
            release_id=release_id,
            envelope=envelope,
            issued_at=self.now(),
        )
        self._note_issue(connection, row, issue, release, counter)

    def _target(self, release: Row) -> tuple[str, int]:
        """Where the targets name the release, and their version; nothing where they do not."""
        if self.metadata is None:
            return "", 0
        named = (release["name"], release["version"], release["digest"])
        return self.metadata.target_of(*named) or ("", 0)

    def _note_issue(
        self, connection: sa.Connection, row: Row, issue: Issue, release: Row | None, counter: int
    ) -> None:
        name = f"{release['name']} {release['version']}" if release else "no release"
        if issue.what == "offer":
            text = f"Offered {name} to {issue.device_id} (desired state {counter})."
        elif issue.what == "withdraw":
            text = f"Withdrew the offer to {issue.device_id}: {NOTHING_BEFORE}."
        elif issue.what == "recall":
            text = f"Recalled the offer to {issue.device_id}: the rollout is paused."
        else:
            text = f"Pointed {issue.device_id} back at {name} (desired state {counter})."
        records.add_event(
            connection,
            self.now(),
            issue.what,
            text,
            device_id=issue.device_id,
            rollout_id=row["id"],
            version=release["version"] if release else "",
        )

    def _note_kept(
        self, connection: sa.Connection, row: Row, before: Rollout, after: Rollout
    ) -> None:
        """Say why devices were not given a release back."""
        for old, new in zip(before.members, after.members, strict=True):
            if new.status is old.status or new.status is not MemberStatus.KEPT:
                continue
            rollout_records.update_member(
                connection, row["number"], new.device_id, detail=NOTHING_BEFORE
            )
            if old.status is MemberStatus.COMMITTED:
                records.add_event(
                    connection,
                    self.now(),
                    "keep",
                    f"{new.device_id} keeps what it runs: {NOTHING_BEFORE}.",
                    device_id=new.device_id,
                    rollout_id=row["id"],
                )

    def _note_pause(
        self, connection: sa.Connection, row: Row, before: Rollout, after: Rollout
    ) -> None:
        if after.paused == before.paused or after.state is not before.state:
            return
        text = f"Rollout {row['id']} goes on."
        if after.paused:
            counts = Counter(member.status for member in after.members)
            text = (
                f"Rollout {row['id']} is paused: {counts[MemberStatus.OFFERED]} devices that have"
                f" begun go on, {counts[MemberStatus.WAITING]} wait."
            )
        records.add_event(connection, self.now(), "rollout", text, rollout_id=row["id"])

    def _note(self, connection: sa.Connection, row: Row, before: Rollout, after: Rollout) -> None:
        if after.state is before.state:
            return
        release = records.release_by(connection, releases.c.id == row["release_id"])
        name = f"{release['name']} {release['version']}" if release else "?"
        reason = f": {after.reason}" if after.reason else ""
        records.add_event(
            connection,
            self.now(),
            "rollout",
            f"Rollout {row['id']} of {name} is now {after.state.replace('_', ' ')}{reason}.",
            rollout_id=row["id"],
            version=release["version"] if release else "",
            phase=after.state.value,
        )


def _changes(before: Rollout, after: Rollout, issues: Sequence[Issue]) -> Changes:
    restored = [issue.device_id for issue in issues if issue.what != "offer"]
    offered = [
        issue.device_id
        for issue in issues
        if issue.what == "offer" and issue.device_id not in restored
    ]
    return Changes(
        offered=tuple(offered),
        restored=tuple(restored),
        ended=before.state is not after.state and after.state in ENDED,
    )
