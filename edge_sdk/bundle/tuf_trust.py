"""What a device believes, step by step: TUF's client rules without I/O.

Bytes and the trusted state go in; a new trusted state or a :class:`TrustError` comes out, and the
old state is never changed. The caller fetches, keeps and tells the time::

    trusted = begin(root_bytes)
    trusted = update_root(trusted, next_root)        # as often as there is a next one
    trusted = update_timestamp(trusted, data, now_s)
    while (wanted := next_wanted(trusted)): ...      # then update_snapshot, update_targets
    check_fresh(trusted, now_s)                      # before anything is installed

The rules are those of the specification's section 5 and of python-tuf's ``TrustedMetadataSet``,
against which the tests compare every verdict. Three are stricter: only Ed25519 counts, one key
under two ids counts once, and delegations are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from edge_sdk.bundle.tuf_metadata import (
    ROLES,
    FileInfo,
    Metadata,
    RoleKeys,
    RoleName,
    Root,
    Snapshot,
    Target,
    Targets,
    Timestamp,
    bad_metadata,
    check_file,
    check_signed,
    mixed,
    parse_root,
    parse_snapshot,
    parse_targets,
    parse_timestamp,
)
from edge_sdk.errors import TrustError

TARGETS_FILE = "targets.json"
_NOBODY = RoleKeys({}, 1)
Role = TypeVar("Role", bound=Metadata)


@dataclass(frozen=True, slots=True)
class Trusted:
    """The metadata that has been verified, each by the roles above it."""

    root: Root
    timestamp: Timestamp | None = None
    snapshot: Snapshot | None = None
    targets: Targets | None = None

    @property
    def versions(self) -> dict[RoleName, int]:
        """Version of each role, 0 where there is none."""
        found = {"timestamp": self.timestamp, "snapshot": self.snapshot, "targets": self.targets}
        listed: dict[RoleName, int] = {"root": self.root.version}
        for name, metadata in found.items():
            listed[name] = metadata.version if metadata else 0  # type: ignore[index]
        return listed


def begin(data: bytes) -> Trusted:
    """Trust a root that was placed on this device; it must be signed by its own keys.

    Raises:
        TrustError: it cannot be read, or its own signatures do not hold.
    """
    root = parse_root(data)
    check_signed(root, root.roles["root"], "root")
    return Trusted(root)


def update_root(trusted: Trusted, data: bytes) -> Trusted:
    """Take over the next root, which the present root's keys and its own have signed.

    An expired one is taken: it may be followed by another. Metadata signed by keys that the new
    root does not name any more is dropped, which is how one recovers from an attacker who had made
    versions run ahead.

    Raises:
        TrustError: ``trust.rollback``: not the next version; or the signatures do not hold.
    """
    root = parse_root(data)
    check_signed(root, trusted.root.roles["root"], "root")
    check_signed(root, root.roles["root"], "root")
    if root.version != trusted.root.version + 1:
        raise _rollback("root", root.version, f"{trusted.root.version + 1} is the next one")
    return Trusted(
        root,
        _still_signed(trusted.timestamp, root, "timestamp"),
        _still_signed(trusted.snapshot, root, "snapshot"),
        _still_signed(trusted.targets, root, "targets"),
    )


def update_timestamp(trusted: Trusted, data: bytes, now_s: float) -> Trusted:
    """Take over newer timestamp metadata; the same version again changes nothing.

    Raises:
        TrustError: the signatures do not hold; ``trust.rollback``: it or the snapshot it names is
            older than what was seen; ``trust.expired-metadata``: it or the root is.
    """
    check_alive(trusted.root, "root", now_s)
    new, known = parse_timestamp(data), trusted.timestamp
    check_signed(new, trusted.root.roles["timestamp"], "timestamp")
    if known is not None:
        if new.version < known.version:
            raise _rollback("timestamp", new.version, f"{known.version} was seen")
        if new.version == known.version:
            return trusted
        if new.snapshot.version < known.snapshot.version:
            seen = f"{known.snapshot.version} was seen"
            raise _rollback("snapshot", new.snapshot.version, seen)
    check_alive(new, "timestamp", now_s)
    return replace(trusted, timestamp=new)


def update_snapshot(trusted: Trusted, data: bytes, now_s: float) -> Trusted:
    """Take over the snapshot that the timestamp names.

    Raises:
        TrustError: the signatures do not hold; ``trust.mix-and-match``: it is not the one named;
            ``trust.rollback``: it takes something back; ``trust.expired-metadata``.
    """
    info = _named_by(trusted.timestamp, "snapshot", now_s, lambda found: found.snapshot)
    check_file(data, info, "snapshot")
    new = parse_snapshot(data)
    check_signed(new, trusted.root.roles["snapshot"], "snapshot")
    for name, known in trusted.snapshot.files.items() if trusted.snapshot else ():
        found = new.files.get(name)
        if found is None:
            raise mixed("snapshot", f"leaves out {name[:64]!r}, which was there before")
        if found.version < known.version:
            raise _rollback("targets", found.version, f"{known.version} was seen")
    _check_version(new, info, "snapshot")
    check_alive(new, "snapshot", now_s)
    return replace(trusted, snapshot=new)


def update_targets(trusted: Trusted, data: bytes, now_s: float) -> Trusted:
    """Take over the targets that the snapshot names.

    Raises:
        TrustError: as :func:`update_snapshot`.
    """
    if next_wanted(trusted) not in (None, ("targets", _targets_info(trusted).version)):
        raise mixed("targets", "comes before the snapshot that names it")
    info = _named_by(trusted.snapshot, "targets", now_s, lambda _: _targets_info(trusted))
    check_file(data, info, "targets")
    new = parse_targets(data)
    check_signed(new, trusted.root.roles["targets"], "targets")
    _check_version(new, info, "targets")
    check_alive(new, "targets", now_s)
    return replace(trusted, targets=new)


def next_wanted(trusted: Trusted) -> tuple[RoleName, int] | None:
    """What must be fetched to match the timestamp; None when everything belongs together."""
    if trusted.timestamp is None:
        return "timestamp", 0
    if trusted.snapshot is None or trusted.snapshot.version != trusted.timestamp.snapshot.version:
        return "snapshot", trusted.timestamp.snapshot.version
    info, targets = _targets_info(trusted), trusted.targets
    if targets is None or targets.version != info.version:
        return "targets", info.version
    if info.sha256 is not None and digest_of(targets.data) != info.sha256:
        return "targets", info.version
    return None


def check_fresh(trusted: Trusted, now_s: float) -> Targets:
    """The targets, when all metadata belongs together and none of it has expired.

    Raises:
        TrustError: ``trust.expired-metadata`` or ``trust.no-metadata``.
    """
    roles: tuple[RoleName, ...] = ("root", "timestamp", "snapshot", "targets")
    found = (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
    for name, metadata in zip(roles, found, strict=True):
        if metadata is not None:
            check_alive(metadata, name, now_s)
    if trusted.targets is None or next_wanted(trusted) is not None:
        raise TrustError(
            "no-metadata",
            "The newest signed metadata has not arrived completely.",
            "Check the connection, and whether the server publishes metadata at all.",
        )
    return trusted.targets


def find_target(targets: Targets, path: str) -> Target:
    """The release published under ``path``.

    Raises:
        TrustError: ``trust.no-target``.
    """
    target = targets.targets.get(path)
    if target is None:
        raise TrustError(
            "no-target",
            f"The publisher's targets (version {targets.version}) do not name {path[:160]!r}.",
            "Sign the release with `edge release sign --keys`, then publish it.",
        )
    return target


def restore(root: bytes, stored: Callable[[RoleName], bytes | None]) -> Trusted:
    """The trusted state from files written earlier, as far as they still hold.

    Nothing is judged by its age here: old metadata still protects from older. What does not hold
    (damaged, or signed by keys replaced since) is left out.

    Args:
        root: the trusted root's bytes.
        stored: the bytes kept of a role.

    Raises:
        TrustError: the root does not hold.
    """
    trusted = begin(root)
    timestamp = _kept(stored("timestamp"), parse_timestamp, trusted.root, "timestamp")
    snapshot = _kept(stored("snapshot"), parse_snapshot, trusted.root, "snapshot")
    targets = _kept(stored("targets"), parse_targets, trusted.root, "targets")
    return Trusted(trusted.root, timestamp, snapshot, targets)


def keys_removed(old: Root, new: Root) -> bool:
    """Whether a key counts no more, and with it the times that it stated."""
    before, after = old.fleet or _NOBODY, new.fleet or _NOBODY
    gone = (old.roles[name].keyids - new.roles[name].keyids for name in ROLES)
    return any(gone) or bool(before.keyids - after.keyids)


def newest_time(trusted: Trusted) -> int:
    """The latest moment at which any of this was signed: it is not earlier than that."""
    found = (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
    return max(metadata.signed_at_s for metadata in found if metadata is not None)


def digest_of(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _kept(
    data: bytes | None, parse: Callable[[bytes], Role], root: Root, name: RoleName
) -> Role | None:
    try:
        return _still_signed(parse(data), root, name) if data else None
    except TrustError:
        return None


def _still_signed(metadata: Role | None, root: Root, name: RoleName) -> Role | None:
    """The metadata, if the keys of this root have signed it."""
    try:
        if metadata is not None:
            check_signed(metadata, root.roles[name], name)
    except TrustError:
        return None
    return metadata


def _named_by(
    above: Role | None, name: RoleName, now_s: float, read: Callable[[Role], FileInfo]
) -> FileInfo:
    """What the metadata above, which must be alive, says about the metadata ``name``."""
    if above is None:
        raise mixed(name, "comes before the metadata that names it")
    check_alive(above, "timestamp" if name == "snapshot" else "snapshot", now_s)
    return read(above)


def _targets_info(trusted: Trusted) -> FileInfo:
    info = trusted.snapshot.files.get(TARGETS_FILE) if trusted.snapshot else None
    if info is None:
        raise bad_metadata("snapshot", f"it does not name {TARGETS_FILE}")
    return info


def _check_version(metadata: Metadata, info: FileInfo, name: RoleName) -> None:
    if metadata.version != info.version:
        raise mixed(name, f"has version {metadata.version}, not {info.version}")


def check_alive(metadata: Metadata, name: RoleName, now_s: float) -> None:
    """Refuse metadata whose date has passed.

    Raises:
        TrustError: ``trust.expired-metadata``.
    """
    if now_s >= metadata.expires_s:
        hours = (now_s - metadata.expires_s) / 3600
        raise TrustError(
            "expired-metadata",
            f"The {name} metadata (version {metadata.version}) expired {hours:.1f} h ago.",
            "What is installed goes on serving. Let the server sign it anew (timestamp, snapshot)"
            " or the holder of the offline keys (root, targets), and check this machine's clock.",
        )


def _rollback(name: RoleName, version: int, why: str) -> TrustError:
    return TrustError(
        "rollback",
        f"The {name} metadata would go back to version {version}; {why}.",
        "Nothing was taken over. If the server was restored from a backup, publish anew.",
    )
