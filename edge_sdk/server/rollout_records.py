"""Reading and writing rollouts and their devices; no decisions are made here."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from edge_sdk.contracts.fleet import (
    ENDED,
    MemberStatus,
    RolloutInfo,
    RolloutMember,
    RolloutState,
)
from edge_sdk.contracts.update import RUNNING_PHASES, Phase, TrialPolicy
from edge_sdk.delivery.windows import parse_window
from edge_sdk.server import records
from edge_sdk.server.db.schema import desired, releases, rollout_devices, rollouts
from edge_sdk.server.pacing import Pacing
from edge_sdk.server.records import Row
from edge_sdk.server.rollout import Member, Rollout

_ACTIVE = rollouts.c.state.not_in(sorted(ENDED))
_BEGUN = RUNNING_PHASES - {Phase.OFFERED, Phase.PREFLIGHT}
_UNTOUCHED = {"phase": "", "detail": "", "code": ""}


def rollout_row(connection: sa.Connection, rollout_id: str) -> Row | None:
    """A rollout by id."""
    query = sa.select(rollouts).where(rollouts.c.id == rollout_id)
    return connection.execute(query).mappings().first()


def active_rollout(connection: sa.Connection) -> Row | None:
    """The rollout that has not ended, of which there is at most one."""
    return connection.execute(sa.select(rollouts).where(_ACTIVE)).mappings().first()


def is_running(row: Row) -> bool:
    """Whether a rollout has not ended."""
    return row["state"] not in ENDED


def latest_rollout(connection: sa.Connection) -> Row | None:
    """The newest rollout, whatever its state."""
    query = sa.select(rollouts).order_by(rollouts.c.number.desc()).limit(1)
    return connection.execute(query).mappings().first()


def all_rollouts(connection: sa.Connection, limit: int) -> list[Row]:
    """Rollouts, newest first."""
    query = sa.select(rollouts).order_by(rollouts.c.number.desc()).limit(limit)
    return list(connection.execute(query).mappings())


def member_rows(connection: sa.Connection, number: int) -> list[Row]:
    """A rollout's devices in their order."""
    query = (
        sa.select(rollout_devices, releases.c.version.label("previous_version"))
        .join_from(
            rollout_devices,
            releases,
            releases.c.id == rollout_devices.c.previous_id,
            isouter=True,
        )
        .where(rollout_devices.c.rollout == number)
        .order_by(rollout_devices.c.position)
    )
    return list(connection.execute(query).mappings())


def member_row(connection: sa.Connection, number: int, device_id: str) -> Row | None:
    """One device of a rollout."""
    query = sa.select(rollout_devices).where(
        rollout_devices.c.rollout == number, rollout_devices.c.device_id == device_id
    )
    return connection.execute(query).mappings().first()


def previous_in(connection: sa.Connection, rollout_id: str, device_id: str) -> int | None:
    """What a device ran before a rollout."""
    query = (
        sa.select(rollout_devices.c.previous_id)
        .join_from(rollout_devices, rollouts, rollouts.c.number == rollout_devices.c.rollout)
        .where(rollouts.c.id == rollout_id, rollout_devices.c.device_id == device_id)
    )
    return connection.execute(query).scalar()


def add_rollout(
    connection: sa.Connection,
    rollout: Rollout,
    previous: dict[str, int | None],
    created_at: float,
    **values: Any,
) -> Row:
    """Store a new rollout; its id is made of its number and some randomness.

    The randomness keeps a server whose data was lost from reusing an id devices remember.
    """
    added = insert(rollouts).values(
        id=secrets.token_hex(8),
        state=rollout.state,
        max_failures=rollout.max_failures,
        rollback_on_failure=rollout.rollback_on_failure,
        created_at=created_at,
        updated_at=created_at,
        **values,
    )
    number: int = connection.execute(added.returning(rollouts.c.number)).scalar_one()
    rollout_id = f"r{number}-{secrets.token_hex(3)}"
    connection.execute(sa.update(rollouts).where(rollouts.c.number == number).values(id=rollout_id))
    rows = [
        {
            "rollout": number,
            "device_id": member.device_id,
            "position": position,
            "canary": member.canary,
            "status": member.status,
            "previous_id": previous[member.device_id],
        }
        for position, member in enumerate(rollout.members)
    ]
    if rows:
        connection.execute(insert(rollout_devices), rows)
    row = rollout_row(connection, rollout_id)
    if row is None:
        raise RuntimeError("a rollout vanished inside its own transaction")
    return row


def rollout_value(row: Row, members: Iterable[Row]) -> Rollout:
    """A rollout as the state machine knows it."""
    return Rollout(
        RolloutState(row["state"]),
        tuple(map(member_value, members)),
        row["max_failures"],
        row["rollback_on_failure"],
        row["reason"],
        row["paused"],
    )


def pacing_value(row: Row) -> Pacing:
    """How fast a rollout may go on."""
    windows = tuple(parse_window(text) for text in json.loads(row["windows"]))
    return Pacing(windows, row["devices_per_hour"], row["next_offer_at"])


def member_value(row: Row) -> Member:
    """One device of a rollout as the state machine knows it."""
    return Member(
        row["device_id"],
        row["canary"],
        MemberStatus(row["status"]),
        row["previous_id"] is not None,
        begun=row["phase"] in _BEGUN,
    )


def save_rollout(
    connection: sa.Connection, number: int, before: Rollout, after: Rollout, at: float
) -> None:
    """Store what a step changed."""
    about = {"state": after.state, "reason": after.reason, "paused": after.paused}
    touch_rollout(connection, number, at, **about)
    for old, new in zip(before.members, after.members, strict=True):
        if old.status is not new.status:
            # What a device said of an offer that is recalled is not about the next one.
            fresh = _UNTOUCHED if new.status is MemberStatus.WAITING else {}
            update_member(connection, number, new.device_id, status=new.status, **fresh)


def touch_rollout(connection: sa.Connection, number: int, at: float, **values: Any) -> None:
    """Change columns of a rollout."""
    changed = sa.update(rollouts).where(rollouts.c.number == number)
    connection.execute(changed.values(updated_at=at, **values))


def offered_besides(connection: sa.Connection, number: int, device_id: str) -> bool:
    """Whether a rollout's offer to another device is open."""
    query = (
        sa.select(rollout_devices.c.device_id)
        .where(
            rollout_devices.c.rollout == number,
            rollout_devices.c.status == MemberStatus.OFFERED,
            rollout_devices.c.device_id != device_id,
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def somebody_waits(connection: sa.Connection, row: Row) -> bool:
    """Whether a device would be offered the release if there were room."""
    waiting = [
        rollout_devices.c.rollout == row["number"],
        rollout_devices.c.status == MemberStatus.WAITING,
    ]
    if row["state"] == RolloutState.CANARY:
        waiting.append(rollout_devices.c.canary)
    query = sa.select(rollout_devices.c.device_id).where(*waiting).limit(1)
    return connection.execute(query).first() is not None


def failures(connection: sa.Connection, number: int) -> int:
    """Devices of a rollout that have failed."""
    query = (
        sa.select(sa.func.count())
        .select_from(rollout_devices)
        .where(
            rollout_devices.c.rollout == number,
            rollout_devices.c.status == MemberStatus.FAILED,
        )
    )
    return connection.execute(query).scalar_one()


def update_member(connection: sa.Connection, number: int, device_id: str, **values: Any) -> None:
    """Change columns of one device of a rollout."""
    connection.execute(
        sa.update(rollout_devices)
        .where(rollout_devices.c.rollout == number, rollout_devices.c.device_id == device_id)
        .values(**values)
    )


def packed_seconds(seconds_in: dict[str, float]) -> str:
    """Seconds by phase as the database keeps them; a device may invent only so many phases."""
    known = {phase.value for phase in Phase}
    return json.dumps({phase: spent for phase, spent in seconds_in.items() if phase in known})


def rollout_info(connection: sa.Connection, row: Row) -> RolloutInfo:
    """A rollout as the interface gives it."""
    release = records.release_by(connection, releases.c.id == row["release_id"])
    members = member_rows(connection, row["number"])
    return RolloutInfo(
        id=row["id"],
        release=release["name"] if release else "",
        version=release["version"] if release else "",
        state=RolloutState(row["state"]),
        canary=row["canary"],
        max_failures=row["max_failures"],
        rollback_on_failure=row["rollback_on_failure"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        reason=row["reason"],
        paused=row["paused"],
        windows=tuple(json.loads(row["windows"])),
        rate_kib_s=row["rate_kib_s"],
        devices_per_hour=row["devices_per_hour"],
        members=tuple(_member_info(member) for member in members),
        skipped=tuple(json.loads(row["skipped"])),
    )


def _member_info(row: Row) -> RolloutMember:
    names = [name for name in RolloutMember.__struct_fields__ if name != "previous_version"]
    values = {name: row[name] for name in names}
    values["status"] = MemberStatus(row["status"])
    values["seconds_in"] = json.loads(row["seconds_in"])
    return RolloutMember(previous_version=row["previous_version"] or "", **values)


def trial_policy(row: Row) -> TrialPolicy:
    """The trial policy of a rollout."""
    return msgspec.json.decode(row["trial"], type=TrialPolicy)


def wanted_releases(connection: sa.Connection) -> set[int]:
    """Releases whose chunks must be on the broker.

    What any device should run, what the active rollout offers, and what the newest rollout would
    go back to.
    """
    wanted = set(connection.execute(sa.select(desired.c.release_id).distinct()).scalars())
    active, latest = active_rollout(connection), latest_rollout(connection)
    if active is not None:
        wanted.add(active["release_id"])
    if latest is not None:
        wanted.update(row["previous_id"] for row in member_rows(connection, latest["number"]))
    return {release_id for release_id in wanted if release_id is not None}
