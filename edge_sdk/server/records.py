"""Reading and writing the database, one function per question; no decisions are made here."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from edge_sdk.contracts.fleet import (
    ENDED,
    DeviceInfo,
    FleetEvent,
    MemberStatus,
    ReleaseInfo,
    RolloutInfo,
    RolloutMember,
    RolloutState,
)
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.update import TrialPolicy
from edge_sdk.server.db.schema import (
    desired,
    devices,
    events,
    releases,
    rollout_devices,
    rollouts,
)
from edge_sdk.server.rollout import Member, Rollout

MAX_EVENTS = 50_000
_ACTIVE = rollouts.c.state.not_in(sorted(ENDED))

Row = sa.RowMapping


def add_event(connection: sa.Connection, at: float, kind: str, text: str, **about: str) -> None:
    """Append to the event log, which keeps its newest :data:`MAX_EVENTS` lines."""
    added = insert(events).values(at=at, kind=kind, text=text, **about).returning(events.c.id)
    newest: int = connection.execute(added).scalar_one()
    if newest % 1000 == 0:
        connection.execute(sa.delete(events).where(events.c.id <= newest - MAX_EVENTS))


def events_after(connection: sa.Connection, after: int, limit: int) -> list[FleetEvent]:
    """Events with a greater id, oldest first."""
    query = sa.select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
    return [FleetEvent(**row) for row in connection.execute(query).mappings()]


def newest_events(connection: sa.Connection, limit: int) -> list[FleetEvent]:
    """The newest events, newest first."""
    query = sa.select(events).order_by(events.c.id.desc()).limit(limit)
    return [FleetEvent(**row) for row in connection.execute(query).mappings()]


def last_event(connection: sa.Connection, kind: str, device_id: str) -> str | None:
    """Text of the newest event of one kind about a device."""
    query = (
        sa.select(events.c.text)
        .where(events.c.device_id == device_id, events.c.kind == kind)
        .order_by(events.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


def release_by(connection: sa.Connection, *conditions: Any) -> Row | None:
    """The release that meets the conditions."""
    return connection.execute(sa.select(releases).where(*conditions)).mappings().first()


def all_releases(connection: sa.Connection) -> list[Row]:
    """Every release, oldest first."""
    return list(connection.execute(sa.select(releases).order_by(releases.c.id)).mappings())


def release_info(row: Row) -> ReleaseInfo:
    """A release as the interface gives it."""
    return ReleaseInfo(
        name=row["name"],
        version=row["version"],
        sequence=row["sequence"],
        digest=row["digest"],
        profiles=tuple(json.loads(row["profiles"])),
        size_bytes=row["size_bytes"],
        published_at=row["published_at"],
        keyids=tuple(json.loads(row["keyids"])),
    )


def add_release(connection: sa.Connection, info: ReleaseInfo) -> None:
    """Store a published release."""
    values = msgspec.structs.asdict(info)
    values["profiles"] = json.dumps(info.profiles)
    values["keyids"] = json.dumps(info.keyids)
    connection.execute(insert(releases).values(seeded=False, **values))


def device_row(connection: sa.Connection, device_id: str) -> Row | None:
    """A device's row."""
    query = sa.select(devices).where(devices.c.id == device_id)
    return connection.execute(query).mappings().first()


def save_device(connection: sa.Connection, device_id: str, **values: Any) -> None:
    """Insert a device or update the given columns."""
    statement = insert(devices).values(id=device_id, **values)
    if values:
        statement = statement.on_conflict_do_update(index_elements=["id"], set_=values)
    else:
        statement = statement.on_conflict_do_nothing()
    connection.execute(statement)


def device_infos(
    connection: sa.Connection, heard_since: float, *conditions: Any
) -> list[DeviceInfo]:
    """Devices as the interface gives them, by id.

    One whose last message came before ``heard_since`` is not online, whatever it said: nobody
    publishes its last will when the broker goes down together with it.
    """
    query = (
        sa.select(
            devices,
            desired.c.counter,
            releases.c.name.label("desired_release"),
            releases.c.version.label("desired_version"),
        )
        .join_from(devices, desired, devices.c.id == desired.c.device_id, isouter=True)
        .join(releases, releases.c.id == desired.c.release_id, isouter=True)
        .where(*conditions)
        .order_by(devices.c.id)
    )
    return [_device_info(row, heard_since) for row in connection.execute(query).mappings()]


def _device_info(row: Row, heard_since: float) -> DeviceInfo:
    skipped = {"telemetry", "sum_version", "frames", "correct"}
    values = {name: value for name, value in row.items() if name not in skipped}
    for name in ("desired_release", "desired_version"):
        values[name] = values[name] or ""
    values["counter"] = values["counter"] or 0
    values["online"] = row["online"] and (row["last_seen"] or 0.0) >= heard_since
    return DeviceInfo(
        accuracy=row["correct"] / row["labelled"] if row["labelled"] else None,
        telemetry=last_sample(row),
        **values,
    )


def last_sample(row: Row) -> TelemetrySample | None:
    """The latest telemetry of a device's row; None when an older server stored other bounds."""
    try:
        return msgspec.json.decode(row["telemetry"] or b"null", type=TelemetrySample | None)
    except msgspec.DecodeError:
        return None


def device_count(connection: sa.Connection) -> int:
    """Number of known devices."""
    return connection.execute(sa.select(sa.func.count()).select_from(devices)).scalar_one()


def desired_row(connection: sa.Connection, device_id: str) -> Row | None:
    """The last desired state issued to a device."""
    query = sa.select(desired).where(desired.c.device_id == device_id)
    return connection.execute(query).mappings().first()


def save_desired(connection: sa.Connection, device_id: str, **values: Any) -> None:
    """Replace a device's desired state."""
    statement = insert(desired).values(device_id=device_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["device_id"], set_=values))


def desired_devices(connection: sa.Connection) -> list[str]:
    """Devices that have ever been issued a desired state."""
    query = sa.select(desired.c.device_id).order_by(desired.c.device_id)
    return list(connection.execute(query).scalars())


def rollout_row(connection: sa.Connection, rollout_id: str) -> Row | None:
    """A rollout by id."""
    query = sa.select(rollouts).where(rollouts.c.id == rollout_id)
    return connection.execute(query).mappings().first()


def active_rollout(connection: sa.Connection) -> Row | None:
    """The rollout that has not ended, of which there is at most one."""
    return connection.execute(sa.select(rollouts).where(_ACTIVE)).mappings().first()


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
    )


def member_value(row: Row) -> Member:
    """One device of a rollout as the state machine knows it."""
    return Member(
        row["device_id"], row["canary"], MemberStatus(row["status"]), row["previous_id"] is not None
    )


def save_rollout(
    connection: sa.Connection, number: int, before: Rollout, after: Rollout, at: float
) -> None:
    """Store what a step changed."""
    touch_rollout(connection, number, at, state=after.state, reason=after.reason)
    for old, new in zip(before.members, after.members, strict=True):
        if old.status is not new.status:
            update_member(connection, number, new.device_id, status=new.status)


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


def rollout_info(connection: sa.Connection, row: Row) -> RolloutInfo:
    """A rollout as the interface gives it."""
    release = release_by(connection, releases.c.id == row["release_id"])
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
        members=tuple(_member_info(member) for member in members),
        skipped=tuple(json.loads(row["skipped"])),
    )


def _member_info(row: Row) -> RolloutMember:
    names = [name for name in RolloutMember.__struct_fields__ if name != "previous_version"]
    values = {name: row[name] for name in names}
    values["status"] = MemberStatus(row["status"])
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


def seeded_releases(connection: sa.Connection) -> list[Row]:
    """Releases whose chunks may be on the broker."""
    query = sa.select(releases).where(releases.c.seeded).order_by(releases.c.id)
    return list(connection.execute(query).mappings())


def mark_seeded(connection: sa.Connection, release_ids: Iterable[int], seeded: bool) -> None:
    """Note that chunks may be (or no longer are) on the broker."""
    ids: Sequence[int] = sorted(release_ids)
    if ids:
        connection.execute(sa.update(releases).where(releases.c.id.in_(ids)).values(seeded=seeded))
