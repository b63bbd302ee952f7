"""Reading and writing the database, one function per question; no decisions are made here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from edge_sdk.contracts.fleet import (
    DeviceInfo,
    FleetEvent,
    ReleaseInfo,
)
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.server.db.schema import (
    desired,
    devices,
    events,
    releases,
)

MAX_EVENTS = 50_000

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


def release_named(connection: sa.Connection, name: str, version: str) -> Row | None:
    """A published release."""
    return release_by(connection, releases.c.name == name, releases.c.version == version)


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


def seeded_releases(connection: sa.Connection) -> list[Row]:
    """Releases whose chunks may be on the broker."""
    query = sa.select(releases).where(releases.c.seeded).order_by(releases.c.id)
    return list(connection.execute(query).mappings())


def mark_seeded(connection: sa.Connection, release_ids: Iterable[int], seeded: bool) -> None:
    """Note that chunks may be (or no longer are) on the broker."""
    ids: Sequence[int] = sorted(release_ids)
    if ids:
        connection.execute(sa.update(releases).where(releases.c.id.in_(ids)).values(seeded=seeded))
