"""What can happen to an update, and what the state machine asks for in return: data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from agent.update.costs import Plan
from agent.update.probation import Alarm, Probation
from agent.update.state import ReleaseRecord, ServiceRecord
from edge_sdk.contracts.update import Desired, Phase, UpdateCosts
from edge_sdk.errors import EdgeError


@dataclass(frozen=True, slots=True)
class Booted:
    """The agent has started and checked which releases' files are intact."""

    intact: frozenset[str]
    """Envelope digests."""


@dataclass(frozen=True, slots=True)
class DesiredReceived:
    """A desired state for this device whose signature holds."""

    desired: Desired


@dataclass(frozen=True, slots=True)
class DesiredWithdrawn:
    """The desired topic was emptied; unsigned, so it may only stop what is under way."""


@dataclass(frozen=True, slots=True)
class ManifestVerified:
    """The desired release's manifest is here, signed, and fits this device."""

    candidate: ReleaseRecord


@dataclass(frozen=True, slots=True)
class PreflightPassed:
    """Disk, battery and headroom suffice."""

    plan: Plan = field(default_factory=Plan)
    deltas: tuple[str, ...] = ()
    """Digests of the deltas that will be fetched instead of files."""


@dataclass(frozen=True, slots=True)
class SpaceShort:
    """The disk is too full for the candidate."""

    detail: str


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Every blob is complete."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Every file that was to be made from a delta is there."""


@dataclass(frozen=True, slots=True)
class RebuildFailed:
    """A delta did not make what it should."""

    detail: str
    plan: Plan = field(default_factory=Plan)
    """Without deltas."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Every blob, read back from disk, has its digest."""


@dataclass(frozen=True, slots=True)
class VerifyFailed:
    """Some blob read back wrong; the shell has deleted it."""

    detail: str


@dataclass(frozen=True, slots=True)
class GoldenPassed:
    """The candidate reproduced its golden outputs here."""


@dataclass(frozen=True, slots=True)
class GoldenFailed:
    """The candidate did not, or crashed, or took too long."""

    detail: str


@dataclass(frozen=True, slots=True)
class TrialPassed:
    """The trial has a good verdict."""

    service: ServiceRecord
    detail: str = ""
    probation: Probation | None = None


@dataclass(frozen=True, slots=True)
class TrialFailed:
    """The trial has a bad verdict, or none in time."""

    why: EdgeError


@dataclass(frozen=True, slots=True)
class WorkerCrashed:
    """The candidate's worker died during the trial."""

    detail: str


@dataclass(frozen=True, slots=True)
class ServiceUnhealthy:
    """The committed release crash-loops."""

    detail: str


@dataclass(frozen=True, slots=True)
class ServiceDegraded:
    """The committed release does not do any more what it did on trial."""

    alarm: Alarm


@dataclass(frozen=True, slots=True)
class ServiceMeasured:
    """New figures of the committed release."""

    service: ServiceRecord


@dataclass(frozen=True, slots=True)
class Refused:
    """The update cannot go on, for a reason that does not condemn the release for good."""

    why: EdgeError


Event: TypeAlias = (
    Booted
    | DesiredReceived
    | DesiredWithdrawn
    | ManifestVerified
    | PreflightPassed
    | SpaceShort
    | Downloaded
    | Rebuilt
    | RebuildFailed
    | Verified
    | VerifyFailed
    | GoldenPassed
    | GoldenFailed
    | TrialPassed
    | TrialFailed
    | WorkerCrashed
    | ServiceUnhealthy
    | ServiceDegraded
    | ServiceMeasured
    | Refused
)


@dataclass(frozen=True, slots=True)
class FetchManifest:
    """Fetch and verify the desired manifest."""


@dataclass(frozen=True, slots=True)
class CheckPreflight:
    """Look at disk, battery and headroom, again and again until they suffice."""

    whole: bool = False
    """Use no deltas."""


@dataclass(frozen=True, slots=True)
class FetchBlobs:
    """Fetch what is missing of the candidate, or the deltas that make it."""

    whole: bool = False
    """Use no deltas."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Make files from those of an earlier release and deltas."""


@dataclass(frozen=True, slots=True)
class VerifyBlobs:
    """Read the candidate back from disk."""


@dataclass(frozen=True, slots=True)
class RunGolden:
    """Run the candidate's golden test beside the service."""


@dataclass(frozen=True, slots=True)
class RunTrial:
    """Put the candidate into service."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The candidate's running worker is the committed one from now on."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve the committed release."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop fetching, verifying and golden testing."""


@dataclass(frozen=True, slots=True)
class CollectGarbage:
    """Delete what no slot and no candidate refers to."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Report a message that was not believed; it says nothing about any deployment."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Report what is wrong with the service, while no deployment can say it."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Report where a deployment stands."""

    desired: Desired
    phase: Phase
    code: str = ""
    detail: str = ""
    costs: UpdateCosts = field(default_factory=UpdateCosts)


Effect: TypeAlias = (
    FetchManifest
    | CheckPreflight
    | FetchBlobs
    | Rebuild
    | VerifyBlobs
    | RunGolden
    | RunTrial
    | Commit
    | Serve
    | Abandon
    | CollectGarbage
    | Tell
    | Notice
    | Alert
)
