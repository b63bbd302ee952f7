"""TUF metadata as a device reads it: bounded, typed, and nothing believed yet.

The format is that of The Update Framework 1.0 as python-tuf writes it: JSON, signatures over the
canonical form of ``signed``, Ed25519. What a device has no use for is refused rather than half
understood: keys of another kind than Ed25519, targets by delegation. Versions and
expiry are judged in :mod:`edge_sdk.bundle.tuf_trust`.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_sdk.bundle.canonical import canonical_json
from edge_sdk.errors import TrustError

RoleName = Literal["root", "timestamp", "snapshot", "targets"]
ROLES: tuple[RoleName, ...] = ("root", "timestamp", "snapshot", "targets")

MAX_BYTES: dict[RoleName, int] = {
    "root": 64 * 1024,
    "timestamp": 8 * 1024,
    "snapshot": 64 * 1024,
    "targets": 1024 * 1024,
}
"""Longer metadata is refused unread; a release takes about 350 bytes of the targets."""
MAX_SIGNATURES = 32
FLEET_FIELD = "x-edge-fleet"
"""In root metadata: who may direct devices. An extension, so other TUF clients pass over it."""
SIGNED_AT_FIELD = "x-edge-signed-at"
"""In every role's metadata: the signer's clock when it signed, whole seconds since the epoch."""

_EXPIRES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_SPEC = re.compile(r"1\.\d{1,4}(\.\d{1,4})?", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{128}", re.ASCII)
_MAX_NUMBER = 2**53


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who may sign for a role."""

    keys: Mapping[str, bytes]
    """Key id to raw Ed25519 public key."""
    threshold: int

    @property
    def keyids(self) -> frozenset[str]:
        """The usable keys' ids."""
        return frozenset(self.keys)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What one piece of metadata, or a target, must look like."""

    version: int = 0
    """0 for a target, which has none."""
    length: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A release as its publisher's targets metadata names it."""

    path: str
    length: int
    sha256: str
    profiles: tuple[str, ...] = ()
    """Hardware it was made for; empty where the publisher did not say."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What every role's metadata has, with the bytes it came in."""

    data: bytes
    version: int
    expires_s: int
    """Seconds since the epoch; invalid from then on."""
    signed_at_s: int
    """When it was signed; 0 where the signer did not say."""
    message: bytes
    """What the signatures cover."""
    signatures: tuple[tuple[str, str], ...]
    """``(key id, hexadecimal signature)``."""


@dataclass(frozen=True, slots=True)
class Root(Metadata):
    """Whom to believe about what."""

    roles: Mapping[RoleName, RoleKeys]
    fleet: RoleKeys | None
    """Who may direct devices; None when this root does not say."""


@dataclass(frozen=True, slots=True)
class Timestamp(Metadata):
    """The newest snapshot, signed often."""

    snapshot: FileInfo


@dataclass(frozen=True, slots=True)
class Snapshot(Metadata):
    """Which versions of metadata belong together."""

    files: Mapping[str, FileInfo]


@dataclass(frozen=True, slots=True)
class Targets(Metadata):
    """What has been published."""

    targets: Mapping[str, Target]


AnyRole: TypeAlias = Root | Timestamp | Snapshot | Targets


def parse_root(data: bytes) -> Root:
    """Root metadata, unverified.

    Raises:
        TrustError: ``trust.bad-metadata`` or ``trust.metadata-too-large``.
    """
    signed, common = _open(data, "root")
    with _Reading("root"):
        keys = {_keyid(name): _key(value) for name, value in _object(signed["keys"]).items()}
        listed = _object(signed["roles"])
        if sorted(listed) != sorted(ROLES):
            raise ValueError("it does not name exactly the four roles")
        roles = {name: _role(listed[name], keys) for name in ROLES}
        fleet = _role(signed[FLEET_FIELD], keys) if FLEET_FIELD in signed else None
        if not isinstance(signed.get("consistent_snapshot", False), bool):
            raise ValueError("consistent_snapshot is neither true nor false")
    return Root(*common, roles, fleet)


def parse_timestamp(data: bytes) -> Timestamp:
    """Timestamp metadata, unverified.

    Raises:
        TrustError: ``trust.bad-metadata`` or ``trust.metadata-too-large``.
    """
    signed, common = _open(data, "timestamp")
    with _Reading("timestamp"):
        files = _object(signed["meta"])
        if list(files) != ["snapshot.json"]:
            raise ValueError("it names another file than snapshot.json")
        snapshot = _file(files["snapshot.json"])
    return Timestamp(*common, snapshot)


def parse_snapshot(data: bytes) -> Snapshot:
    """Snapshot metadata, unverified.

    Raises:
        TrustError: ``trust.bad-metadata`` or ``trust.metadata-too-large``.
    """
    signed, common = _open(data, "snapshot")
    with _Reading("snapshot"):
        files = {name: _file(value) for name, value in _object(signed["meta"]).items()}
    return Snapshot(*common, files)


def parse_targets(data: bytes) -> Targets:
    """Targets metadata, unverified.

    Raises:
        TrustError: ``trust.bad-metadata`` or ``trust.metadata-too-large``.
    """
    signed, common = _open(data, "targets")
    with _Reading("targets"):
        if "delegations" in signed:
            raise ValueError("delegations are not supported")
        listed = _object(signed["targets"])
        targets = {path: _target(path, value) for path, value in listed.items()}
    return Targets(*common, targets)


def target_path(release: str, version: str) -> str:
    """Where a release stands in the targets metadata."""
    return f"releases/{release}/{version}"


def signers(metadata: Metadata, role: RoleKeys) -> set[str]:
    """Ids of the role's keys whose signature holds; one key under two ids counts once."""
    held: dict[bytes, str] = {}
    for keyid, signature in metadata.signatures:
        public = role.keys.get(keyid)
        if public is None or public in held or not _SIGNATURE.fullmatch(signature):
            continue
        try:
            key = Ed25519PublicKey.from_public_bytes(public)
            key.verify(bytes.fromhex(signature), metadata.message)
        except (InvalidSignature, ValueError):
            continue
        held[public] = keyid
    return set(held.values())


def check_signed(metadata: Metadata, role: RoleKeys, what: RoleName) -> None:
    """Refuse metadata that too few of the role's keys have signed.

    Raises:
        TrustError: ``trust.bad-signature``.
    """
    held = signers(metadata, role)
    if len(held) < role.threshold:
        given = ", ".join(sorted(keyid[:16] for keyid, _ in metadata.signatures)) or "nobody"
        known = ", ".join(sorted(keyid[:16] for keyid in role.keys)) or "none"
        raise TrustError(
            "bad-signature",
            f"{len(held)} of {role.threshold} required signatures hold on the {what} metadata"
            f" (signed by: {given}; trusted keys: {known}).",
            "Sign with the keys that the root metadata names, or find out who publishes there.",
        )


def check_file(data: bytes, info: FileInfo, what: RoleName) -> None:
    """Refuse bytes that are not the file that trusted metadata describes.

    Raises:
        TrustError: ``trust.mix-and-match``.
    """
    wrong = info.length is not None and len(data) != info.length
    if wrong or (info.sha256 is not None and hashlib.sha256(data).hexdigest() != info.sha256):
        raise mixed(what, "has other bytes than the metadata above it names")


def mixed(what: RoleName, why: str) -> TrustError:
    """The refusal of metadata that does not belong to what was trusted before it."""
    return TrustError(
        "mix-and-match",
        f"The {what} metadata {why}.",
        "Nothing was taken over. Find out who publishes there besides the server.",
    )


def bad_metadata(what: str, why: object) -> TrustError:
    """The refusal of metadata that cannot be read."""
    return TrustError(
        "bad-metadata",
        f"The {what} metadata cannot be used: {str(why)[:200]}.",
        "It is damaged, or another program wrote it; publish it again.",
    )


class _Reading:
    """Turns every way in which a document can be shaped wrongly into one error."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if isinstance(error, KeyError):
            raise bad_metadata(self._what, f"it has no {error}") from error
        if isinstance(error, ValueError | TypeError | RecursionError):
            raise bad_metadata(self._what, error) from error


_Common: TypeAlias = tuple[bytes, int, int, int, bytes, tuple[tuple[str, str], ...]]


def _open(data: bytes, what: RoleName) -> tuple[dict[str, Any], _Common]:
    """The signed part and the fields that all roles share."""
    if len(data) > MAX_BYTES[what]:
        raise TrustError(
            "metadata-too-large",
            f"The {what} metadata has {len(data)} bytes; at most {MAX_BYTES[what]} are read.",
            "Remove old releases from the targets, or find out who publishes there.",
        )
    with _Reading(what):
        document = _object(json.loads(data))
        signed = _object(document["signed"])
        if signed["_type"] != what:
            raise ValueError(f"it is of type {str(signed['_type'])[:40]!r}")
        if not isinstance(signed["spec_version"], str) or not _SPEC.fullmatch(
            signed["spec_version"]
        ):
            raise ValueError("its version of the TUF specification is not known here")
        signatures = _signatures(document["signatures"])
        version, expires_s = _number(signed["version"], 1), _expires(signed["expires"])
        signed_at_s = _number(signed.get(SIGNED_AT_FIELD, 0), 0)
        message = canonical_json(signed)
    return signed, (data, version, expires_s, signed_at_s, message, signatures)


def _signatures(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list) or len(value) > MAX_SIGNATURES:
        raise ValueError(f"it has no list of at most {MAX_SIGNATURES} signatures")
    found = tuple((_keyid(item["keyid"]), item["sig"]) for item in map(_object, value))
    if len({keyid for keyid, _ in found}) != len(found):
        raise ValueError("one key has signed it twice")
    if not all(isinstance(signature, str) for _, signature in found):
        raise ValueError("a signature is not a text")
    return found


def _expires(value: Any) -> int:
    if not isinstance(value, str) or not _EXPIRES.fullmatch(value):
        raise ValueError("its expiry is not a date")
    return calendar.timegm(datetime.fromisoformat(value).timetuple())


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is missing")
    return value


def _number(value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _MAX_NUMBER:
        raise ValueError("a number is missing or out of its range")
    return value


def _keyid(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a key id is not a text")
    return value


def _key(value: Any) -> bytes:
    """The raw public key."""
    key = _object(value)
    kind, scheme, public = key["keytype"], key["scheme"], _object(key["keyval"])["public"]
    if not all(isinstance(item, str) for item in (kind, scheme, public)):
        raise ValueError("a key is not made of texts")
    if (kind, scheme) != ("ed25519", "ed25519"):
        raise ValueError("it names a key of another kind than Ed25519")
    if not _HEX.fullmatch(public):
        raise ValueError("an Ed25519 key has not 64 hexadecimal digits")
    return bytes.fromhex(public)


def _role(value: Any, keys: Mapping[str, bytes]) -> RoleKeys:
    role = _object(value)
    keyids = role["keyids"]
    if not isinstance(keyids, list) or len(set(map(_keyid, keyids))) != len(keyids):
        raise ValueError("the key ids of a role are not a list without repetitions")
    return RoleKeys({keyid: keys[keyid] for keyid in keyids}, _number(role["threshold"], 1))


def _file(value: Any) -> FileInfo:
    info = _object(value)
    return FileInfo(
        version=_number(info["version"], 1),
        length=_number(info["length"], 0) if "length" in info else None,
        sha256=_sha256(info["hashes"]) if "hashes" in info else None,
    )


def _sha256(value: Any) -> str:
    hashes = _object(value)
    digest = hashes["sha256"]
    if len(hashes) > 1 or not isinstance(digest, str) or not _HEX.fullmatch(digest):
        raise ValueError("the hashes are not one SHA-256")
    return digest


def _target(path: str, value: Any) -> Target:
    info = _object(value)
    custom = _object(info.get("custom", {}))
    profiles = custom.get("profiles", [])
    if not isinstance(profiles, list) or not all(isinstance(name, str) for name in profiles):
        raise ValueError("the profiles of a target are not a list of names")
    return Target(path, _number(info["length"], 0), _sha256(info["hashes"]), tuple(profiles))
