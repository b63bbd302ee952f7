"""What a fleet server's REST interface takes and gives; shared by the server and its client."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.update import MaintenanceWindows, TrialPolicy, UpdateCosts

Devices = Annotated[int, Meta(le=1_000_000)]
"""A number of devices."""
Rate = Annotated[int, Meta(ge=0, le=2**30)]
"""KiB per second."""


class RolloutState(StrEnum):
    """Where a rollout stands."""

    PENDING = "pending"
    CANARY = "canary"
    """The first devices have been offered the release; the others wait."""
    FULL = "full"
    DONE = "done"
    FAILED = "failed"
    """More devices refused or rolled back than allowed; the others got their release back."""
    ABORTED = "aborted"
    """Stopped by the operator; devices that had committed keep the release."""
    ROLLED_BACK = "rolled_back"
    """Taken back by the operator on every device."""


ENDED = frozenset(
    {RolloutState.DONE, RolloutState.FAILED, RolloutState.ABORTED, RolloutState.ROLLED_BACK}
)
"""States in which a rollout issues no further offers."""


class MemberStatus(StrEnum):
    """Where one device stands in a rollout, as the server sees it."""

    WAITING = "waiting"
    OFFERED = "offered"
    COMMITTED = "committed"
    FAILED = "failed"
    """Rejected or rolled back by the device; it has been given its previous release."""
    RESTORED = "restored"
    """The server gave it its previous release back."""
    KEPT = "kept"
    """There was nothing to go back to: it keeps the release if it has it by now; an offer that it
    had not committed was withdrawn."""


class ReleaseInfo(Wire, kw_only=True):
    """A published release."""

    name: str
    version: str
    sequence: int
    digest: str
    """SHA-256 of the signed manifest's envelope."""
    profiles: tuple[str, ...]
    size_bytes: int
    """Sum of its blobs."""
    published_at: float
    """Seconds since the epoch."""
    keyids: tuple[str, ...] = ()
    """Keys that signed it; verified when the server was started with release keys."""


class DeviceInfo(Wire, kw_only=True):
    """A device as last heard of."""

    id: str
    profile: str
    enrolled: bool
    """False for a device that reported without having been enrolled here."""
    online: bool = False
    """It says so, and was heard of lately; see docs/server.md."""
    last_seen: float | None = None
    """Server's clock, seconds since the epoch."""
    agent_version: str = ""
    runtime: str = ""
    release: str = ""
    version: str = ""
    phase: str = ""
    deployment: str = ""
    detail: str = ""
    point: str = ""
    desired_release: str = ""
    desired_version: str = ""
    counter: int = 0
    """Counter of the last desired state issued to it."""
    root_version: int = 0
    """Of the TUF root that it says it believes; 0 where it says none."""
    accuracy: float | None = None
    """Share of labelled frames decided correctly since the running version started."""
    labelled: int = 0
    telemetry: TelemetrySample | None = None
    """The latest sample."""


class RolloutMember(UpdateCosts, kw_only=True):
    """One device of a rollout."""

    device_id: str
    canary: bool
    status: MemberStatus
    phase: str = ""
    """The device's own last word on this deployment."""
    detail: str = ""
    code: str = ""
    previous_version: str = ""


class RolloutInfo(Wire, kw_only=True):
    """A rollout and its devices."""

    id: str
    release: str
    version: str
    state: RolloutState
    canary: int
    max_failures: int
    rollback_on_failure: bool
    created_at: float
    updated_at: float
    reason: str = ""
    paused: bool = False
    """No further device begins; those that have begun go on."""
    windows: MaintenanceWindows = ()
    rate_kib_s: Rate = 0
    devices_per_hour: Devices = 0
    waits: str = ""
    """Why no further device is offered it at this moment, though some wait."""
    members: tuple[RolloutMember, ...] = ()
    skipped: tuple[str, ...] = ()
    """Devices left out because the release has no ladder for their profile."""


class RolloutRequest(Wire, kw_only=True):
    """What ``POST /api/v1/rollouts`` takes."""

    release: str
    version: str
    canary: Devices = 0
    """Devices that go first; 0 offers the release to all at once."""
    max_failures: Devices = 0
    """One more than this ends the rollout."""
    rollback_on_failure: bool = False
    devices: tuple[str, ...] = ()
    """Empty: every known device that the release has a ladder for."""
    trial: TrialPolicy = TrialPolicy()
    new_contract: bool = False
    """Devices may take it although its labels or its preprocessing differ from what they run."""
    windows: MaintenanceWindows = ()
    """When devices may be offered it (the server's local time) and may fetch it (their own)."""
    rate_kib_s: Rate = 0
    """Each device fetches at most so fast; 0 for no bound."""
    devices_per_hour: Devices = 0
    """At most so many are offered it in an hour; 0 for no bound."""


class EnrollRequest(Wire, kw_only=True):
    """What ``PUT /api/v1/devices/ID`` takes."""

    profile: str


class FleetEvent(Wire, kw_only=True):
    """A line of the event log."""

    id: int
    at: float
    """Server's clock, seconds since the epoch."""
    kind: str
    """``release``, ``rollout``, ``offer``, ``restore``, ``withdraw``, ``keep``, ``update``,
    ``refusal``, ``alert``, ``device``, ``ladder``, ``broker``, ``delivery``..."""
    text: str
    """One sentence for a person."""
    device_id: str = ""
    rollout_id: str = ""
    version: str = ""
    phase: str = ""
    code: str = ""


class MetadataUpload(Wire, kw_only=True):
    """What ``PUT /api/v1/tuf`` takes: what the publisher signed offline."""

    roots: tuple[bytes, ...]
    """Every root from the first on; base64 in JSON."""
    targets: bytes


class MetadataVersions(Wire, kw_only=True):
    """Which TUF metadata is in force; zeros where there is none."""

    root: int = 0
    targets: int = 0
    snapshot: int = 0
    timestamp: int = 0


class FleetTrust(Wire, kw_only=True):
    """What a device needs to trust this server's desired states."""

    tenant: str
    broker: str
    """URL that the server itself uses; devices may need another address."""
    keyid: str
    public_key: bytes
    """Raw Ed25519 public key of the fleet, 32 bytes; base64 in JSON."""


class Health(Wire, kw_only=True):
    """What ``GET /api/v1/health`` gives, without a token."""

    schema: int = SCHEMA
    ok: bool
    version: str
    broker_connected: bool
    broker_report: str = ""
    """What the broker was found to be able to do, and which way chunks take."""
