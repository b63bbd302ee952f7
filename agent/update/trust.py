"""What a device accepts: trust decisions of the agent, without I/O.

The two functions here judge documents. Which releases the publisher stands behind at all, and whose
signatures count, is :class:`agent.update.authority.Authority`'s to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from agent.pipelines.shapes import check_feedable
from agent.update.input_contract import contract_of
from agent.update.state import ReleaseRecord
from edge_sdk.bundle import trust as documents
from edge_sdk.bundle.needs import needed_refs
from edge_sdk.contracts.manifest import BlobRef, Manifest
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.trust import TrustRoot
from edge_sdk.contracts.update import Desired
from edge_sdk.errors import ContractError, RuntimeUnavailableError, TrustError


@dataclass(frozen=True, slots=True)
class Device:
    """What decides which releases fit."""

    device_id: str
    profile_id: str
    runtimes: tuple[str, ...]
    """Inference runtimes that work here."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """A trusted manifest, seen from this device."""

    manifest: Manifest
    payload: bytes
    """The manifest's signed bytes."""
    points: tuple[OperatingPoint, ...]
    """The ladder's points that this device can run."""
    refs: tuple[BlobRef, ...]
    """Blobs needed here: artifacts of those points and their golden vectors, or what they are
    built from."""


def accept_desired(payload: bytes, root: TrustRoot, device_id: str) -> Desired:
    """A desired state, once its signature holds and it is meant for this device.

    The counter is the state machine's to judge, the hardware :func:`check_hardware`'s.

    Raises:
        TrustError: the signature does not hold, or ``trust.other-device``.
        ContractError, ConfigError: as :func:`edge_sdk.bundle.trust.verify_desired`.
    """
    desired = documents.verify_desired(payload, root)
    if desired.device_id != device_id:
        raise TrustError(
            "other-device",
            f"The desired state is for {desired.device_id!r}, not for {device_id!r}.",
            "Check that no two devices share a topic, and who publishes there.",
        )
    if desired.manifest.size_bytes > documents.MAX_ENVELOPE_BYTES:
        raise TrustError(
            "too-large",
            f"The release's envelope would have {desired.manifest.size_bytes} bytes.",
            f"At most {documents.MAX_ENVELOPE_BYTES} are read; split the release.",
        )
    return desired


def check_hardware(desired: Desired, device: Device) -> None:
    """Refuse a wish that was signed for other hardware.

    Raises:
        TrustError: ``trust.other-hardware``.
    """
    if desired.profile and desired.profile != device.profile_id:
        raise other_hardware(desired.profile, device.profile_id)


def other_hardware(meant: str, here: str) -> TrustError:
    """Something signed for other devices than this one."""
    return TrustError(
        "other-hardware",
        f"It is meant for {meant}; this device is {here!r}.",
        "Check the device's profile here and on the server.",
    )


def accept_manifest(
    envelope: bytes, root: TrustRoot, desired: Desired, device: Device, *, vouched: bool = False
) -> Fitting:
    """The manifest a desired state names, once it is trusted and fits this device.

    Args:
        envelope: as fetched.
        root: whose signatures count.
        desired: what names it.
        device: what fits.
        vouched: trusted targets metadata names this very envelope, so that its own signatures,
            which may be of keys replaced since, add nothing.

    Raises:
        TrustError: the digest or the signatures do not hold, or ``trust.other-release``.
        ContractError: malformed, too new, inconsistent, ``contract.no-ladder``, or not what this
            device's pipelines can feed: ``contract.no-pipeline``, ``contract.model-input`` or
            ``contract.model-output``.
        RuntimeUnavailableError: ``runtime.no-usable-point``.
    """
    if hashlib.sha256(envelope).hexdigest() != desired.manifest.digest:
        raise TrustError(
            "blob-damaged",
            "The release's envelope is not the one the desired state names.",
            "Publish the release again.",
        )
    if vouched:
        manifest = documents.read_manifest(envelope)
    else:
        manifest = documents.verify_manifest(envelope, root)
    if (manifest.release, manifest.version) != (desired.release, desired.version):
        raise TrustError(
            "other-release",
            f"The desired state says {desired.release} {desired.version}, its manifest"
            f" {manifest.release} {manifest.version}.",
            "Create the rollout again.",
        )
    points = usable_points(manifest, device.profile_id, device.runtimes)
    for point in points:
        check_feedable(manifest.task, manifest.artifacts[point.artifact])
    payload = documents.open_envelope(envelope, "the manifest's envelope").payload
    return Fitting(manifest, payload, points, needed_refs(manifest, points))


def usable_points(
    manifest: Manifest, profile_id: str, runtimes: Sequence[str]
) -> tuple[OperatingPoint, ...]:
    """The part of a profile's ladder that the runtimes on this device can run, most faithful first.

    Raises:
        ContractError: ``contract.no-ladder``.
        RuntimeUnavailableError: ``runtime.no-usable-point``.
    """
    ladder = manifest.ladders.get(profile_id)
    if not ladder:
        raise ContractError(
            "no-ladder",
            f"{manifest.release} {manifest.version} has no ladder for profile {profile_id!r}"
            f" (it has: {', '.join(sorted(manifest.ladders)) or 'none'}).",
            "Convert the model for this profile too: `edge model convert --profile ...`.",
        )
    points = tuple(point for point in ladder if point.runtime in runtimes)
    if not points:
        wanted = ", ".join(sorted({point.runtime for point in ladder}))
        raise RuntimeUnavailableError(
            "no-usable-point",
            f"{manifest.release} {manifest.version} needs {wanted} on this device;"
            f" it has {', '.join(runtimes) or 'no runtime'}.",
            "Install one of them: pip install 'edge-sdk[litert]' or 'edge-sdk[onnx]'.",
        )
    return points


def record_of(fitting: Fitting, digest: str) -> ReleaseRecord:
    """The release in the envelope ``digest``, as the state file keeps it."""
    manifest = fitting.manifest
    return ReleaseRecord(
        digest=digest,
        payload_digest=hashlib.sha256(fitting.payload).hexdigest(),
        release=manifest.release,
        version=manifest.version,
        sequence=manifest.sequence,
        accuracy=fitting.points[0].accuracy,
        blobs=(digest, *(ref.digest for ref in fitting.refs)),
        contract=contract_of(manifest.task),
    )
