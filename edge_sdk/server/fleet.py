"""The fleet: every operation of the server, each one transaction, then a word to the courier.

The database is the truth. What the broker holds is derived from it and can be published again at
any time, so the server may be killed between a commit and the messages that follow from it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.signing import SigningKey
from edge_sdk.contracts.fleet import (
    DeviceInfo,
    FleetEvent,
    ReleaseInfo,
)
from edge_sdk.contracts.topics import Topics, check_name
from edge_sdk.errors import UsageError
from edge_sdk.server import records, rollout_records
from edge_sdk.server.courier import Courier
from edge_sdk.server.db.schema import devices
from edge_sdk.server.depot import Depot
from edge_sdk.server.ingest import Incoming, Ingest
from edge_sdk.server.issuing import Changes, Issuer
from edge_sdk.server.metadata import MetadataShop
from edge_sdk.server.metadata_desk import MetadataDesk
from edge_sdk.server.rollout_desk import RolloutDesk
from edge_sdk.suggest import did_you_mean

OFFLINE_AFTER_SECONDS = 90.0
"""Silence after which a device no longer counts as online: nine samples at the agent's default."""
MAX_EVENTS_PER_CALL = 1000


class Fleet:
    """The server's operations; those about rollouts are in :attr:`rolling`. Thread-safe.

    Args:
        engine: an open, migrated database.
        depot: release files.
        key: the fleet's signing key.
        topics: the tenant's topics.
        now: seconds since the epoch.
        offline_after_s: silence after which a device no longer counts as online.
        metadata: the online half of the TUF repository; None for pinned keys alone.
    """

    def __init__(
        self,
        engine: sa.Engine,
        depot: Depot,
        key: SigningKey,
        topics: Topics,
        now: Callable[[], float],
        *,
        offline_after_s: float = OFFLINE_AFTER_SECONDS,
        metadata: MetadataShop | None = None,
    ) -> None:
        self.depot = depot
        self._offline_after_s = offline_after_s
        self.topics = topics
        self._engine, self._now = engine, now
        self.desk = MetadataDesk(metadata, key, topics, now, self._transaction)
        self._issuer = Issuer(key, depot, now, metadata)
        self._ingest = Ingest(topics, self._issuer, now)
        self.rolling = RolloutDesk(
            engine, self._transaction, self._issuer, self.desk, self._heard_since, self._carry
        )
        self._write = threading.Lock()
        self._courier: Courier | None = None

    @property
    def refused_messages(self) -> int:
        """Device messages that could not be used."""
        return self._ingest.refused

    @property
    def failed_messages(self) -> int:
        """Device messages that met a defect of the server."""
        return self._ingest.failed

    def attach(self, courier: Courier) -> None:
        """Say who talks to the broker."""
        self._courier = self.desk.courier = courier

    def publish_release(self, data: bytes) -> tuple[ReleaseInfo, bool]:
        """Register a signed manifest whose blobs have been uploaded.

        Args:
            data: the envelope's bytes.

        Returns:
            The release, and whether it is new.

        Raises:
            UsageError: ``usage.version-exists``.
            TrustError, ContractError, StorageError: as :meth:`Depot.check_release`.
        """
        manifest, keyids = self.depot.check_release(data)
        info = ReleaseInfo(
            name=manifest.release,
            version=manifest.version,
            sequence=manifest.sequence,
            digest=blob_ref(data).digest,
            profiles=tuple(sorted(manifest.ladders)),
            size_bytes=sum(ref.size_bytes for ref in manifest.blobs.values()),
            published_at=self._now(),
            keyids=keyids,
        )
        with self._transaction() as connection:
            known = records.release_named(connection, info.name, info.version)
            if known is not None:
                if known["digest"] == info.digest:
                    return records.release_info(known), False
                raise UsageError(
                    "version-exists",
                    f"{info.name} {info.version} is published already, with other content.",
                    "Give the new release another version; a published one never changes.",
                )
            self.depot.keep_release(manifest, data)
            records.add_release(connection, info)
            self._event(connection, "release", f"Published {info.name} {info.version}.", info)
        return info, True

    def releases(self) -> list[ReleaseInfo]:
        """Every published release, oldest first."""
        with self._engine.connect() as connection:
            return [records.release_info(row) for row in records.all_releases(connection)]

    def devices(self) -> list[DeviceInfo]:
        """Every known device."""
        with self._engine.connect() as connection:
            return records.device_infos(connection, self._heard_since())

    def device_count(self) -> int:
        """How many devices are known."""
        with self._engine.connect() as connection:
            return records.device_count(connection)

    def device(self, device_id: str) -> DeviceInfo:
        """One device.

        Raises:
            UsageError: ``usage.unknown-device``.
        """
        with self._engine.connect() as connection:
            found = records.device_infos(connection, self._heard_since(), devices.c.id == device_id)
            if found:
                return found[0]
            known = [device.id for device in records.device_infos(connection, 0.0)]
        raise UsageError(
            "unknown-device",
            f"There is no device {device_id!r} on this server.",
            did_you_mean(device_id, known[:50]),
        )

    def enroll(self, device_id: str, profile: str) -> DeviceInfo:
        """Make a device known before it first reports.

        Raises:
            ConfigError: ``config.bad-name``.
        """
        check_name(device_id, "device")
        check_name(profile, "profile")
        with self._transaction() as connection:
            known = records.device_row(connection, device_id)
            records.save_device(connection, device_id, profile=profile, enrolled=True)
            if known is None or not known["enrolled"]:
                text = f"Enrolled {device_id} as {profile}."
                records.add_event(connection, self._now(), "device", text, device_id=device_id)
        return self.device(device_id)

    def events(self, after: int, limit: int) -> list[FleetEvent]:
        """Events with an id above ``after``, oldest first, a bounded number."""
        with self._engine.connect() as connection:
            return records.events_after(connection, after, min(max(limit, 1), MAX_EVENTS_PER_CALL))

    def newest_events(self, limit: int) -> list[FleetEvent]:
        """The newest events, newest first."""
        with self._engine.connect() as connection:
            return records.newest_events(connection, limit)

    def ingest(self, messages: Sequence[Incoming]) -> None:
        """Apply device messages, in order, in one transaction."""
        with self._transaction() as connection:
            changes = [self._ingest.message(connection, message) for message in messages]
            requests = self._ingest.take_requests()
        for change in changes:
            self._carry(change)
        if self._courier is not None:
            for request in requests:
                self._courier.answer(request)

    def note_broker(self, text: str) -> None:
        """Write down what the broker was found to be able to do, when that is news."""
        with self._transaction() as connection:
            if records.last_event(connection, "broker", "") != text:
                records.add_event(connection, self._now(), "broker", text)

    def desired_devices(self) -> list[str]:
        """Devices that have been issued a desired state."""
        with self._engine.connect() as connection:
            return records.desired_devices(connection)

    def desired_message(self, device_id: str) -> tuple[str, bytes] | None:
        """Topic and payload of the device's newest desired state; an empty payload clears it."""
        with self._engine.connect() as connection:
            row = records.desired_row(connection, device_id)
        return (self.topics.desired(device_id), row["envelope"]) if row else None

    def chunk_plan(self) -> tuple[list[str], list[str]]:
        """Envelope digests of ``(wanted, unwanted)`` releases; the unwanted may be on the broker.

        Wanted ones are marked as seeded, for a later clearing to know about them.
        """
        with self._transaction() as connection:
            wanted = rollout_records.wanted_releases(connection)
            records.mark_seeded(connection, wanted, True)
            rows = records.seeded_releases(connection)
        split: tuple[list[str], list[str]] = ([], [])
        for row in rows:
            split[row["id"] not in wanted].append(row["digest"])
        return split

    def cleared(self, digests: Sequence[str]) -> None:
        """The chunks of releases are off the broker, unless wanted again by now."""
        with self._transaction() as connection:
            wanted = rollout_records.wanted_releases(connection)
            gone = [
                row["id"]
                for row in records.seeded_releases(connection)
                if row["digest"] in digests and row["id"] not in wanted
            ]
            records.mark_seeded(connection, gone, False)

    def _heard_since(self) -> float:
        return self._now() - self._offline_after_s

    def _carry(self, changes: Changes) -> None:
        """Tell the courier what a committed transaction changed."""
        if self._courier is None:
            return
        if changes.seeded:
            self._courier.seed(changes.seeded)
        if changes.restored:
            self._courier.desired(changes.restored, after_seeding=False)
        if changes.offered:
            self._courier.desired(changes.offered, after_seeding=True)
        if changes.ended:
            _, unwanted = self.chunk_plan()
            self._courier.clear(unwanted)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """One writer at a time: SQLite would make the second wait and then refuse it."""
        with self._write, self._engine.begin() as connection:
            yield connection

    def _event(self, connection: sa.Connection, kind: str, text: str, release: ReleaseInfo) -> None:
        records.add_event(connection, self._now(), kind, text, version=release.version)
