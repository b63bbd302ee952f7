"""Messages of an over-the-air update."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.manifest import BlobRef
from edge_sdk.contracts.telemetry import Count, Total


class Phase(StrEnum):
    """Where a device stands in an update."""

    IDLE = "idle"
    OFFERED = "offered"
    PREFLIGHT = "preflight"
    DOWNLOADING = "downloading"
    RECONSTRUCTING = "reconstructing"
    """Files are made from those of an earlier release and deltas."""
    VERIFYING = "verifying"
    GOLDEN = "golden"
    TRIAL = "trial"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    REJECTED = "rejected"


FINAL_PHASES = frozenset({Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REJECTED})
"""Phases in which a deployment has ended on a device."""
RUNNING_PHASES = frozenset(Phase) - FINAL_PHASES - {Phase.IDLE}
"""Phases in which an update is under way."""


RootVersion = Annotated[int, Meta(ge=0, le=2**31 - 1)]
WishCounter = Annotated[int, Meta(ge=0, le=2**53 - 1)]
MaintenanceWindows = Annotated[tuple[Annotated[str, Meta(max_length=80)], ...], Meta(max_length=16)]
"""``"22:00-05:00"``, ``"Sat,Sun 00:00-24:00"``; see :mod:`edge_sdk.delivery.windows`."""
BytesPerSecond = Annotated[int, Meta(ge=0, le=2**40)]


class TrialPolicy(Wire, kw_only=True):
    """When a new release has proven itself in service."""

    min_frames: int = 100
    max_frames: int = 2000
    max_seconds: float = 600.0
    """A trial without a verdict by then is rolled back: unproven is not proven."""
    accuracy_drop: float = 0.05
    """The loss against the baseline that the sequential test must be able to exclude."""
    false_abort: float = 0.002
    """Probability of rolling back a release as good as the baseline."""
    miss: float = 0.01
    """Probability of committing a release worse by :attr:`accuracy_drop`."""
    max_error_rate: float = 0.02
    max_worker_crashes: int = 1
    """One more than this ends the trial."""
    max_latency_ratio: float = 3.0
    """p95 latency against the previous release's p95; a device does not go back over a p95 that
    keeps 20 % headroom to its pipeline's objective, or, without one, stays below 10 ms."""


class Desired(Wire, kw_only=True):
    """What one device should run; signed by the fleet key, retained on the broker."""

    schema: int = SCHEMA
    device_id: str
    deployment: str
    """Identifies this rollout; repeats of the same deployment are not new work."""
    counter: int
    """Grows with every desired state issued to the device; a lower one is a replay."""
    release: str
    version: str
    manifest: BlobRef
    """The signed manifest's envelope."""
    trial: TrialPolicy = TrialPolicy()
    new_contract: bool = False
    """The release is meant to have other labels or another preprocessing than the one before."""
    windows: MaintenanceWindows = ()
    """When files may be fetched, in the device's local time, besides its own windows; always where
    there are none. Agents of earlier versions do not know it."""
    max_bytes_per_s: BytesPerSecond = 0
    """Bound on fetching, besides the device's own; 0 for none. Likewise."""
    issued_at: float = 0.0
    """Seconds since the epoch, the server's clock."""
    profile: str = ""
    """The hardware it is meant for; empty from servers of earlier versions."""
    target: str = ""
    """Path of the release in the publisher's targets metadata; empty without TUF."""
    targets_version: Annotated[int, Meta(ge=0)] = 0
    """Version of the targets that the server had when it decided: older ones do not do."""


class UpdateCosts(Wire, kw_only=True):
    """What an update costs a device and its link, since its wish was accepted.

    Once every file is there, ``bytes_offered`` is ``bytes_total`` plus what recipes and deltas
    saved, and ``bytes_total - bytes_reused`` is what had to come; ``bytes_received`` beyond that
    came twice, wrong or unasked.
    """

    bytes_offered: Total = 0
    """Every file that this device needs of the release, whole, and its signed manifest."""
    bytes_received: Total = 0
    """Everything that arrived as chunks, wanted or not."""
    bytes_total: Total = 0
    """Of the blobs that those files are made from here."""
    bytes_reused: Total = 0
    """Of :attr:`bytes_total`, on the device before the update began, so not sent."""
    bytes_saved_recipes: Total = 0
    """Not needed, because files are built from others of the release."""
    bytes_saved_delta: Total = 0
    """Not needed, because files are built from those of an earlier release."""
    bytes_written: Total = 0
    """To flash, by the updater: chunks, states, metadata."""
    chunk_retries: Count = 0
    seconds_in: dict[str, Annotated[float, Meta(ge=0)]] = msgspec.field(default_factory=dict)
    """Seconds spent in each phase; time without power does not count."""


class UpdateStatus(UpdateCosts, kw_only=True):
    """An event of an update on one device."""

    schema: int = SCHEMA
    device_id: str
    deployment: str
    release: str
    version: str
    phase: Phase
    at: float
    """Seconds since the epoch, the device's clock."""
    detail: str = ""
    """One sentence for a person."""
    code: str = ""
    """Error code where the phase is a failure."""
    counter: WishCounter = 0
    """Of the desired state that this is about; 0 from agents of earlier versions."""


class DeviceState(Wire, kw_only=True):
    """The device's retained twin."""

    schema: int = SCHEMA
    device_id: str
    online: bool
    profile: str = ""
    agent_version: str = ""
    runtime: str = ""
    release: str = ""
    version: str = ""
    phase: Phase = Phase.IDLE
    deployment: str = ""
    counter: WishCounter = 0
    """Of the desired state that phase and deployment are about; 0 from earlier versions."""
    detail: str = ""
    point: str = ""
    delivery: str = ""
    """Which way chunks take to it, and why."""
    root_version: RootVersion = 0
    """Of the TUF root that it believes; 0 without TUF, and from agents of earlier versions."""
    at: float = 0.0


class ChunkRequest(Wire, kw_only=True):
    """A device names chunks it could not get from the broker."""

    schema: int = SCHEMA
    device_id: str
    digest: str
    chunks: tuple[Count, ...]
    """Indexes into the blob's chunk list; at most 64."""
