"""Trust decisions about documents, without I/O except for the trust file itself.

Whoever verifies a manifest or a desired state calls :func:`verify_manifest` or
:func:`verify_desired` and learns the document, or why not. Which releases exist at all, and which
keys count, is said by TUF metadata where the trust file holds a root: see
:mod:`edge_sdk.bundle.tuf_trust`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_sdk.bundle.blobs import check_blob_ref
from edge_sdk.bundle.check import check_manifest
from edge_sdk.bundle.signing import PUBLIC_KEY_BYTES, check_type, keyid, verify
from edge_sdk.bundle.tuf_metadata import Root
from edge_sdk.bundle.tuf_trust import begin
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.envelope import DESIRED_TYPE, MANIFEST_TYPE, TIME_TYPE, Envelope
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.contracts.topics import check_name
from edge_sdk.contracts.trust import TimeAttestation, TrustRoot
from edge_sdk.contracts.update import Desired
from edge_sdk.durable import Storage
from edge_sdk.errors import TrustError

MAX_ENVELOPE_BYTES = 4 * 1024 * 1024
"""A larger envelope is refused undecoded; a manifest of a gigabyte of blobs is about 1.5 MiB."""


def trust_root(
    release: Iterable[bytes], fleet: Iterable[bytes], release_threshold: int = 1, root: bytes = b""
) -> TrustRoot:
    """A trust root from raw public keys, or around TUF root metadata.

    Raises:
        TrustError: ``trust.bad-root``.
    """
    made = TrustRoot(
        release_keys={keyid(public): public for public in release},
        release_threshold=release_threshold,
        fleet_keys={keyid(public): public for public in fleet},
        root=root,
    )
    check_trust_root(made, "the trust root")
    return made


def keys_of(root: Root) -> TrustRoot:
    """Whom TUF root metadata says to believe, as envelopes name keys."""
    targets, fleet = root.roles["targets"], root.fleet
    return TrustRoot(
        release_keys={keyid(public): public for public in targets.keys.values()},
        release_threshold=targets.threshold,
        fleet_keys={keyid(public): public for public in fleet.keys.values()} if fleet else {},
        root=root.data,
    )


def check_trust_root(root: TrustRoot, what: str) -> None:
    """Refuse a trust root that could never be satisfied, or too easily.

    Raises:
        TrustError: ``trust.bad-root``.
    """
    problem = ""
    for known, public in (*root.release_keys.items(), *root.fleet_keys.items()):
        if len(public) != PUBLIC_KEY_BYTES or keyid(public) != known:
            problem = f"key {known[:16]!r} is not the key its id says"
    if root.root:
        problem = problem or _metadata_problem(root.root)
    elif root.release_threshold < 1 or root.release_threshold > max(len(root.release_keys), 1):
        problem = f"{root.release_threshold} signatures are asked of {len(root.release_keys)} keys"
    if problem:
        raise TrustError(
            "bad-root",
            f"{what} is wrong: {problem}.",
            "Make it again with `edge release key trust`.",
        )


def _metadata_problem(data: bytes) -> str:
    try:
        fleet = begin(data).root.fleet
    except TrustError as error:
        return error.cause.rstrip(".")
    return "" if fleet and fleet.keys else "its root metadata names no fleet key"


def load_trust(path: Path) -> TrustRoot:
    """Read a trust file.

    Raises:
        TrustError: ``trust.no-root`` or ``trust.bad-root``.
        ContractError: ``contract.malformed`` or ``contract.too-new``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrustError(
            "no-root",
            f"Cannot read the trust file {path}: {error.strerror or error}.",
            "Make one with `edge release key trust`, or correct the path.",
        ) from error
    root = decode(data, TrustRoot, f"the trust file {path}")
    check_trust_root(root, f"The trust file {path}")
    return root


def save_trust(root: TrustRoot, path: Path, storage: Storage) -> None:
    """Write a trust file, durably."""
    storage.write(path, encode(root))


def open_envelope(data: bytes, what: str) -> Envelope:
    """Decode an envelope without believing it.

    Raises:
        ContractError: ``contract.malformed``.
        TrustError: ``trust.too-large``.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise TrustError(
            "too-large",
            f"{what} has {len(data)} bytes.",
            f"At most {MAX_ENVELOPE_BYTES} are read; split the release.",
        )
    return decode(data, Envelope, what)


def verify_manifest(data: bytes, root: TrustRoot) -> Manifest:
    """The manifest in an envelope's bytes, once its signatures and its consistency hold.

    Raises:
        TrustError: the signatures do not hold.
        ContractError: the envelope or the manifest is malformed, too new or inconsistent.
    """
    envelope = open_envelope(data, "the manifest's envelope")
    payload = verify(envelope, MANIFEST_TYPE, root.release_keys, root.release_threshold)
    return _manifest(payload)


def read_manifest(data: bytes) -> Manifest:
    """The manifest in an envelope whose very bytes are vouched for otherwise.

    Raises:
        TrustError: ``trust.wrong-type`` or ``trust.too-large``.
        ContractError: as :func:`verify_manifest`.
    """
    envelope = open_envelope(data, "the manifest's envelope")
    check_type(envelope, MANIFEST_TYPE)
    return _manifest(envelope.payload)


def _manifest(payload: bytes) -> Manifest:
    manifest = decode(payload, Manifest, "the manifest")
    check_manifest(manifest)
    return manifest


def verify_desired(data: bytes, root: TrustRoot) -> Desired:
    """The desired state in an envelope's bytes, once its signature and its names hold.

    Raises:
        TrustError: the signature does not hold.
        ContractError: the envelope or the desired state is malformed or too new.
        ConfigError: ``config.bad-name``: a name in it is not safe.
    """
    envelope = open_envelope(data, "the desired state's envelope")
    desired = decode(verify(envelope, DESIRED_TYPE, root.fleet_keys), Desired, "the desired state")
    check_name(desired.device_id, "device")
    check_name(desired.deployment, "deployment")
    check_name(desired.release, "release name")
    check_name(desired.version, "version")
    check_blob_ref(desired.manifest)
    return desired


def verify_time(data: bytes, root: TrustRoot) -> TimeAttestation:
    """The fleet's word on what time it is, once its signature holds.

    Raises:
        TrustError: the signature does not hold.
        ContractError: the envelope or the attestation is malformed or too new.
    """
    envelope = open_envelope(data, "the time attestation's envelope")
    return decode(verify(envelope, TIME_TYPE, root.fleet_keys), TimeAttestation, "the time")
