"""One role's metadata: making it, changing it, signing it. No files, no clock.

Everything is written through python-tuf, so that any TUF client can read it. What a device makes of
the same bytes is :mod:`edge_sdk.bundle.tuf_trust`, which does without that package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    T,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from edge_sdk.bundle.signing import SigningKey
from edge_sdk.bundle.tuf_metadata import FLEET_FIELD, SIGNED_AT_FIELD, bad_metadata
from edge_sdk.bundle.tuf_trust import digest_of
from edge_sdk.errors import UsageError

KeyRole = Literal["root", "targets", "snapshot", "timestamp", "fleet"]
KEY_ROLES: tuple[KeyRole, ...] = ("root", "targets", "snapshot", "timestamp", "fleet")
"""Roles whose keys a root names. ``fleet`` directs devices; it is not one of TUF's own."""


def public_key(public: bytes) -> SSlibKey:
    """A raw Ed25519 public key as TUF names it."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public))


def tuf_keyid(public: bytes) -> str:
    """The id that TUF metadata gives a raw public key; unlike the short id of an envelope."""
    keyid: str = public_key(public).keyid
    return keyid


def read(data: bytes, kind: type[T]) -> Metadata[T]:
    """Metadata of one kind, unverified.

    Raises:
        TrustError: ``trust.bad-metadata``.
    """
    try:
        found: Metadata[T] = Metadata.from_bytes(data)
    except DeserializationError as error:
        raise bad_metadata(kind.type, error) from error
    if not isinstance(found.signed, kind):
        raise bad_metadata(kind.type, f"it is of type {found.signed.type}")
    return found


def write(metadata: Metadata[T]) -> bytes:
    """The bytes that travel."""
    data: bytes = metadata.to_bytes(JSONSerializer(compact=True))
    return data


def signed_by(signed: T, keys: Iterable[SigningKey]) -> Metadata[T]:
    """The document with a signature of each key."""
    metadata = Metadata(signed)
    add_signatures(metadata, keys)
    return metadata


def add_signatures(metadata: Metadata[T], keys: Iterable[SigningKey]) -> None:
    """Add a signature of each key, in place of an earlier one of the same key."""
    for key in keys:
        metadata.sign(CryptoSigner(key.private), append=True)


def new_root(
    keys: Mapping[KeyRole, Sequence[bytes]], root_threshold: int, now_s: int, expires_s: int
) -> Root:
    """The first root.

    Args:
        keys: raw public keys of each role.
        root_threshold: how many root keys must sign; of the other roles one is enough.
        now_s: the signer's clock, seconds since the epoch.
        expires_s: the same, when it becomes invalid.
    """
    root = Root(expires=_date(expires_s), consistent_snapshot=True)
    root.unrecognized_fields[SIGNED_AT_FIELD] = now_s
    for role in KEY_ROLES:
        for public in keys[role]:
            add_key(root, role, public)
    root.roles["root"].threshold = root_threshold
    return root


def add_key(root: Root, role: KeyRole, public: bytes) -> None:
    """Let a key sign for a role."""
    key = public_key(public)
    if role == "fleet":
        fleet = root.unrecognized_fields.setdefault(FLEET_FIELD, {"keyids": [], "threshold": 1})
        if key.keyid not in fleet["keyids"]:
            fleet["keyids"].append(key.keyid)
        root.keys[key.keyid] = key
    else:
        root.add_key(key, role)


def remove_key(root: Root, role: KeyRole, keyid: str) -> None:
    """Let a key sign for a role no more."""
    if keyid not in role_keyids(root, role):
        raise UsageError(
            "unknown-key",
            f"The root metadata names no {role} key {keyid[:16]}.",
            "See `edge release key list`.",
        )
    if role == "fleet":
        root.unrecognized_fields[FLEET_FIELD]["keyids"].remove(keyid)
    else:
        root.roles[role].keyids.remove(keyid)
    if not any(keyid in role_keyids(root, each) for each in KEY_ROLES):
        root.keys.pop(keyid, None)


def role_keyids(root: Root, role: KeyRole) -> list[str]:
    """Ids of the keys that may sign for a role."""
    if role == "fleet":
        return fleet_keyids(root)
    return list(root.roles[role].keyids)


def role_threshold(root: Root, role: KeyRole) -> int:
    """How many keys must sign for a role."""
    if role == "fleet":
        return int(root.unrecognized_fields.get(FLEET_FIELD, {}).get("threshold", 1))
    return int(root.roles[role].threshold)


def describe_changes(before: Root | None, after: Root) -> list[str]:
    """What a root changes, a line each, for whoever is to sign it."""
    lines = []
    for role in KEY_ROLES:
        old = role_keyids(before, role) if before else []
        new = role_keyids(after, role)
        lines += [f"{role}: key {keyid[:16]} goes" for keyid in old if keyid not in new]
        lines += [f"{role}: key {keyid[:16]} comes" for keyid in new if keyid not in old]
        asked, asks = (role_threshold(before, role) if before else 0), role_threshold(after, role)
        if asked != asks:
            lines.append(
                f"{role}: {asks} of {len(new)} keys must sign" + f", not {asked}" * bool(asked)
            )
    return lines or [f"no keys; it lives until {after.expires:%Y-%m-%d}"]


def fleet_keyids(root: Root) -> list[str]:
    """Ids of the keys that may direct devices."""
    return list(root.unrecognized_fields.get(FLEET_FIELD, {}).get("keyids", []))


def add_target(targets: Targets, path: str, envelope: bytes, profiles: Sequence[str]) -> None:
    """Name a release: its signed manifest's envelope, and the hardware it was made for."""
    target = TargetFile.from_data(path, envelope, ["sha256"])
    target.unrecognized_fields = {"custom": {"profiles": sorted(profiles)}}
    targets.targets[path] = target


def new_targets(now_s: int, expires_s: int) -> Targets:
    """Targets that name nothing yet."""
    extra = {SIGNED_AT_FIELD: now_s}
    return Targets(version=1, expires=_date(expires_s), unrecognized_fields=extra)


def new_version(signed: Signed, now_s: int, expires_s: int) -> None:
    """Count up, and let it live from now until then."""
    signed.version += 1
    signed.expires = _date(expires_s)
    signed.unrecognized_fields[SIGNED_AT_FIELD] = now_s


def make_snapshot(
    version: int, targets: bytes, now_s: int, expires_s: int, key: SigningKey
) -> bytes:
    """Snapshot metadata that names these targets."""
    named = read(targets, Targets).signed.version
    snapshot = Snapshot(
        version,
        expires=_date(expires_s),
        meta={"targets.json": MetaFile(named, len(targets), _hashes(targets))},
        unrecognized_fields={SIGNED_AT_FIELD: now_s},
    )
    return write(signed_by(snapshot, [key]))


def make_timestamp(
    version: int, snapshot: bytes, now_s: int, expires_s: int, key: SigningKey
) -> bytes:
    """Timestamp metadata that names this snapshot."""
    named = read(snapshot, Snapshot).signed.version
    meta = MetaFile(named, len(snapshot), _hashes(snapshot))
    extra = {SIGNED_AT_FIELD: now_s}
    timestamp = Timestamp(
        version, expires=_date(expires_s), snapshot_meta=meta, unrecognized_fields=extra
    )
    return write(signed_by(timestamp, [key]))


def _hashes(data: bytes) -> dict[str, str]:
    return {"sha256": digest_of(data)}


def _date(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
