"""The fleet's dealings with TUF metadata and time: what is published, asked, and signed again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import sqlalchemy as sa

from edge_sdk.bundle.signing import SigningKey, sign
from edge_sdk.bundle.trust import open_envelope
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import DESIRED_TYPE, TIME_TYPE
from edge_sdk.contracts.fleet import MetadataUpload, MetadataVersions
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TimeAttestation, TimeRequest
from edge_sdk.errors import TrustError
from edge_sdk.server import records
from edge_sdk.server.courier import Courier
from edge_sdk.server.metadata import MetadataShop
from edge_sdk.server.records import Row


class MetadataDesk:
    """Operations of the server about metadata. Thread-safe.

    Args:
        shop: the online half of the repository; None for pinned keys alone.
        key: the fleet's signing key.
        topics: the tenant's topics.
        now: seconds since the epoch.
        transaction: opens one on the fleet's database.
    """

    def __init__(
        self,
        shop: MetadataShop | None,
        key: SigningKey,
        topics: Topics,
        now: Callable[[], float],
        transaction: Callable[[], AbstractContextManager[sa.Connection]],
    ) -> None:
        self.shop = shop
        self._key, self._topics, self._now = key, topics, now
        self._transaction = transaction
        self.courier: Courier | None = None
        """Who talks to the broker."""

    def publish(self, upload: MetadataUpload) -> MetadataVersions:
        """Take over roots and targets that the publisher signed.

        Raises:
            TrustError: as :meth:`MetadataShop.publish`; ``trust.no-repository``.
        """
        if self.shop is None:
            raise TrustError(
                "no-repository", "This server keeps no TUF metadata.", "Start it anew."
            )
        before = self.shop.versions
        self.shop.publish(upload.roots, upload.targets)
        after = self.shop.versions
        if after != before:
            text = f"Took over metadata: root {after['root']}, targets {after['targets']}."
            with self._transaction() as connection:
                records.add_event(connection, self._now(), "metadata", text)
        if self.courier is not None:
            self.courier.metadata()
        return self.versions()

    def versions(self) -> MetadataVersions:
        """Which metadata is in force; zeros without TUF."""
        versions = self.shop.versions if self.shop else {}
        return MetadataVersions(**versions)

    def renew_desired(self) -> int:
        """Sign again every desired state that another fleet key signed; how many.

        After the fleet's key was replaced, devices believe the new one alone.
        """
        renewed = 0
        with self._transaction() as connection:
            for device_id in records.desired_devices(connection):
                row = records.desired_row(connection, device_id)
                if row is None or not row["envelope"]:
                    continue
                envelope = open_envelope(row["envelope"], "a stored desired state")
                if {known.keyid for known in envelope.signatures} == {self._key.keyid}:
                    continue
                signed = encode(sign(DESIRED_TYPE, envelope.payload, self._key))
                records.save_desired(
                    connection,
                    device_id,
                    counter=row["counter"],
                    deployment=row["deployment"],
                    release_id=row["release_id"],
                    envelope=signed,
                    issued_at=row["issued_at"],
                )
                renewed += 1
        return renewed

    def time_message(self, request: TimeRequest) -> tuple[str, bytes]:
        """Topic and payload of the answer to a question for the time."""
        answer = TimeAttestation(device_id=request.device_id, nonce=request.nonce, at=self._now())
        topic = self._topics.time(request.device_id)
        return topic, encode(sign(TIME_TYPE, encode(answer), self._key))

    def check_published(self, release: Row) -> None:
        """Refuse a release that every device would refuse."""
        named = (release["name"], release["version"], release["digest"])
        if self.shop and self.shop.required and not self.shop.target_of(*named):
            raise TrustError(
                "no-target",
                f"The publisher's targets do not name {named[0]} {named[1]} as published here.",
                "Sign it with `edge release sign --keys KEYS`, then publish it.",
            )
