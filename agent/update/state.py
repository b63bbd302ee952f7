"""The updater's persistent state: one small file whose replacement is the only commit point."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from agent.update.input_contract import InputContract
from agent.update.probation import Probation
from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.update import Desired, Phase, UpdateCosts

SlotName = Literal["a", "b"]

MAX_BAD = 64
"""Digests remembered as bad; the oldest are forgotten."""


class ServiceRecord(Wire, kw_only=True):
    """How a release did on this device's own stream."""

    labelled: int = 0
    correct: int = 0
    p95_ms: float = 0.0
    """0 when not known."""


class ReleaseRecord(Wire, kw_only=True):
    """A release as the state file refers to it; its files lie in the blob store."""

    digest: str
    """SHA-256 of the signed envelope: the identity of the release."""
    payload_digest: str
    """SHA-256 of the manifest's bytes: unlike :attr:`digest` it survives another signature."""
    release: str
    version: str
    sequence: int
    accuracy: float
    """Measured by the publisher at the best point this device can run; 0..1."""
    blobs: tuple[str, ...]
    """Every blob this device needs of it, the envelope first."""
    service: ServiceRecord = ServiceRecord()
    contract: InputContract | None = None
    """None in states of earlier versions."""
    probation: Probation | None = None
    """What it showed on trial; None before it has passed one, and in states of earlier versions."""


class UpdateState(Wire, kw_only=True):
    """Everything that must survive a power cut.

    The active slot is what serves; the other one, if filled, is the release before it, which
    serves again when the active one crash-loops. A candidate occupies neither until it has
    proven itself.
    """

    schema: int = SCHEMA
    device_id: str = ""
    """Whose state this is; empty in files of earlier versions."""
    tenant: str = ""
    slots: dict[SlotName, ReleaseRecord] = msgspec.field(default_factory=dict)
    active: SlotName | None = None
    phase: Phase = Phase.IDLE
    desired: Desired | None = None
    """The deployment under way or ended last."""
    counter: int = -1
    """Highest counter accepted; survives everything, for it is the replay protection."""
    candidate: ReleaseRecord | None = None
    tries: int = 0
    """Starts of the candidate in this phase, counted before each start."""
    crashes: int = 0
    """Crashes of the candidate's worker during the trial."""
    deltas: tuple[str, ...] = ()
    """Blobs that files of the candidate are made from; kept until the update has ended."""
    rebuilds: int = 0
    """Times that this was begun, counted before each; it may be what takes the agent down."""
    bad: tuple[str, ...] = ()
    """Envelope and payload digests that have failed here, oldest first."""
    code: str = ""
    """Error code of the last ended deployment; empty when it ended well."""
    detail: str = ""
    costs: UpdateCosts = UpdateCosts()
    """Of the deployment under way or ended last."""
    salvaged: bool = False
    """The state was lost and put together from the files; nothing is deleted until the next
    commit."""

    def belonging_to(self, device_id: str, tenant: str) -> UpdateState:
        """This state as that device's own.

        Under another name than it was written by only the releases stay: counters, deployments
        and verdicts are a matter between one device and its fleet.
        """
        known = (self.device_id, self.tenant) if self.device_id else (device_id, tenant)
        if known == (device_id, tenant):
            return replace(self, device_id=device_id, tenant=tenant)
        return UpdateState(
            device_id=device_id,
            tenant=tenant,
            slots=self.slots,
            active=self.active,
            salvaged=self.salvaged,
        )

    @property
    def serving(self) -> ReleaseRecord | None:
        """The committed release."""
        return self.slots[self.active] if self.active is not None else None

    @property
    def spare(self) -> SlotName:
        """The slot that is not active."""
        return "b" if self.active == "a" else "a"

    @property
    def fallback(self) -> ReleaseRecord | None:
        """The release before the committed one."""
        return self.slots.get(self.spare)

    def referenced(self) -> set[str]:
        """Digests of the blobs that must be kept."""
        records = [*self.slots.values()]
        if self.candidate is not None:
            records.append(self.candidate)
        return {digest for record in records for digest in record.blobs} | {*self.deltas}
