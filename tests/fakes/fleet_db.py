"""A fleet on a real database without a broker: messages go in, what it would publish comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_sdk.bundle.trust import trust_root, verify_desired
from edge_sdk.contracts.base import Wire, encode
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import Desired, DeviceState, Phase, UpdateStatus
from edge_sdk.durable import DiskStorage
from edge_sdk.server.courier import Request
from edge_sdk.server.db.engine import open_database
from edge_sdk.server.depot import Depot
from edge_sdk.server.fleet import Fleet
from edge_sdk.server.ingest import Incoming
from tests.fakes.updating import FLEET_KEY, RELEASE_KEY, TinyRelease, tiny_release

TRUST = trust_root([RELEASE_KEY.public], [FLEET_KEY.public])


@dataclass
class RecordingCourier:
    """Remembers what it was asked to carry."""

    seeded: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    metadata_sent: int = 0

    def seed(self, releases: Sequence[str]) -> None:
        self.seeded += releases

    def clear(self, releases: Sequence[str]) -> None:
        self.cleared += releases

    def desired(self, devices: Sequence[str], *, after_seeding: bool) -> None:
        (self.offered if after_seeding else self.restored).extend(devices)

    def answer(self, request: Request) -> None:
        self.requests.append(request)

    def metadata(self) -> None:
        self.metadata_sent += 1


class FleetOnDisk:
    """A fleet over a folder; closing and opening again is a restart."""

    def __init__(self, folder: Path, storage: DiskStorage | None = None) -> None:
        self.topics = Topics("edge")
        self.clock = 1000.0
        self.engine = open_database(folder / "fleet.db")
        self.depot = Depot(folder, storage or DiskStorage())
        self.fleet = Fleet(self.engine, self.depot, FLEET_KEY, self.topics, self._now)
        self.courier = RecordingCourier()
        self.fleet.attach(self.courier)

    def close(self) -> None:
        self.engine.dispose()

    def _now(self) -> float:
        self.clock += 0.001
        return self.clock

    def publish(self, version: str, **options: object) -> TinyRelease:
        release = tiny_release(version, size=2000, **options)  # type: ignore[arg-type]
        for data in release.blobs.values():
            self.depot.blobs.put(data)
        self.fleet.publish_release(release.envelope)
        return release

    def hear(self, leaf: str, message: Wire, sender: str = "") -> None:
        """A message as it comes from the broker."""
        device = sender or message.device_id  # type: ignore[attr-defined]
        topic = self.topics.state(device).removesuffix("state") + leaf
        self.fleet.ingest([Incoming(topic, encode(message))])

    def state(
        self,
        device: str,
        *,
        online: bool = True,
        version: str = "",
        phase: Phase = Phase.IDLE,
        deployment: str = "",
        profile: str = "rpi4",
        delivery: str = "",
        counter: int = 0,
    ) -> None:
        """The device's twin."""
        message = DeviceState(
            device_id=device,
            online=online,
            profile=profile,
            release="digits" if version else "",
            version=version,
            phase=phase,
            deployment=deployment,
            delivery=delivery,
            counter=counter,
        )
        self.hear("state", message)

    def status(self, device: str, phase: Phase, deployment: str | None = None, **more: Any) -> None:
        """An update event about what the device was last told, unless it names another."""
        desired = self.desired(device)
        about = desired.deployment if desired is not None else ""
        if deployment is None and desired is not None:
            more.setdefault("counter", desired.counter)
        message = UpdateStatus(
            device_id=device,
            deployment=about if deployment is None else deployment,
            release="digits",
            version=desired.version if desired is not None else "",
            phase=phase,
            at=1.0,
            **more,
        )
        self.hear("ota", message)

    def commit(self, device: str) -> None:
        """The device does what it was told, and says so as a device does."""
        desired = self.desired(device)
        if desired is None:
            return
        self.status(device, Phase.COMMITTED)
        self.state(
            device,
            version=desired.version,
            phase=Phase.COMMITTED,
            deployment=desired.deployment,
            counter=desired.counter,
        )

    def desired(self, device: str) -> Desired | None:
        """What is (or would be) retained for the device, verified as the device would."""
        message = self.fleet.desired_message(device)
        if message is None or not message[1]:
            return None
        assert message[0] == self.topics.desired(device)
        desired = verify_desired(message[1], TRUST)
        assert desired.device_id == device
        return desired
