"""The online half of the TUF repository: what the publisher signed, and what the server signs.

::

    DATA/tuf/1.root.json, 2.root.json, ...    every root, as the holders of the root keys signed it
    DATA/tuf/targets.json                     the publisher's newest targets
    DATA/tuf/snapshot.json, timestamp.json    made here, signed by the server's own two keys

A server without a root publishes no metadata, and devices go by their pinned keys. A stolen server
can let devices see nothing new until the timestamp expires; it cannot make them believe a release
that the targets keys did not sign.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.bundle.signing import SigningKey
from edge_sdk.bundle.tuf_metadata import (
    RoleName,
    Root,
    Targets,
    check_signed,
    parse_targets,
    target_path,
)
from edge_sdk.bundle.tuf_trust import (
    Trusted,
    begin,
    next_wanted,
    restore,
    update_root,
    update_snapshot,
    update_targets,
    update_timestamp,
)
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TufHead
from edge_sdk.durable import Storage
from edge_sdk.errors import TrustError
from edge_sdk.repository import metadata as md

log = logging.getLogger(__name__)

TIMESTAMP_S = 24 * 3600
"""How long an attacker can keep devices from noticing that something newer exists."""
SNAPSHOT_S = 30 * 24 * 3600
RENEW_SHARE = 0.75
"""Signed anew when less than this share of its life is left."""


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """The private keys that lie on the server."""

    fleet: SigningKey
    snapshot: SigningKey
    timestamp: SigningKey


class MetadataShop:
    """Keeps, makes and hands out the repository's metadata. Thread-safe.

    Args:
        data: the server's data folder.
        storage: through which every durable step goes.
        keys: the server's own.
        now: seconds since the epoch.
    """

    def __init__(
        self, data: Path, storage: Storage, keys: OnlineKeys, now: Callable[[], float]
    ) -> None:
        self._folder = data / "tuf"
        self._storage, self._keys, self._now = storage, keys, now
        self._lock = threading.RLock()
        self._roots = self._load_roots()
        self._trusted = restore(self._roots[-1], self._read) if self._roots else None
        try:
            self.resign()
            if self._trusted is not None:
                self._check_keys(self._trusted.root)
        except TrustError as error:
            log.error("metadata: %s", error)

    @property
    def required(self) -> bool:
        """Whether this fleet goes by TUF metadata."""
        return self._trusted is not None

    @property
    def versions(self) -> dict[RoleName, int]:
        """Version of each role; empty without a root."""
        with self._lock:
            return self._trusted.versions if self._trusted else {}

    def publish(self, roots: Sequence[bytes], targets: bytes) -> None:
        """Take over what the publisher signed, and make snapshot and timestamp for it.

        Args:
            roots: every root from the first on.
            targets: the newest targets.

        Raises:
            TrustError: something is not signed as the root before it asks, older than what is
                here, or for another server's keys (``trust.not-online-key``).
        """
        with self._lock:
            known = len(self._roots)
            trusted = self._trusted or begin(roots[0] if roots else b"")
            following = roots[trusted.root.version :]
            for data in following:
                trusted = update_root(trusted, data)
            self._check_keys(trusted.root)
            new = self._check_targets(trusted, targets)
            for version, data in enumerate(roots[known:], known + 1):
                self._storage.write(self._folder / f"{version}.root.json", data)
                self._roots.append(data)
            if trusted.targets is None or trusted.targets.data != targets:
                self._storage.write(self._folder / "targets.json", targets)
            self._trusted = trusted
            self._make(trusted, new)

    def resign(self) -> bool:
        """Sign snapshot and timestamp anew when they have aged; whether anything was made.

        Raises:
            StorageError: it could not be kept; the old ones stay in force.
        """
        with self._lock:
            trusted = self._trusted
            if trusted is None or self._foreign(trusted.root):
                return False
            before = trusted.versions
            self._complete(trusted)
            return self.versions != before

    def target_of(self, release: str, version: str, digest: str) -> tuple[str, int] | None:
        """``(path, targets version)`` of a release that the targets name; None if they do not."""
        with self._lock:
            targets = self._trusted.targets if self._trusted else None
            path = target_path(release, version)
            target = targets.targets.get(path) if targets else None
            if targets is None or target is None or target.sha256 != digest:
                return None
            return path, targets.version

    def messages(self, topics: Topics) -> list[tuple[str, bytes]]:
        """What belongs on the broker, in the order in which it must get there."""
        with self._lock:
            trusted = self._trusted
            if trusted is None or trusted.timestamp is None:
                return []
            found = [(topics.tuf("root", n), data) for n, data in enumerate(self._roots, 1)]
            for role, metadata in (("targets", trusted.targets), ("snapshot", trusted.snapshot)):
                if metadata is not None:
                    found.append((topics.tuf(role, metadata.version), metadata.data))
            head = TufHead(
                root=trusted.root.version,
                timestamp=trusted.timestamp.version,
                targets=trusted.versions["targets"],
            )
            found.append((topics.tuf_head(), encode(head)))
            found.append((topics.tuf_timestamp(), trusted.timestamp.data))
            return found

    def outdated(self, topics: Topics) -> list[str]:
        """Topics of metadata that no device needs any more: all but the newest two versions."""
        with self._lock:
            versions = self.versions
            roles: tuple[RoleName, ...] = ("snapshot", "targets")
            return [
                topics.tuf(role, versions[role] - 2) for role in roles if versions.get(role, 0) > 2
            ]

    def _check_keys(self, root: Root) -> None:
        foreign = self._foreign(root)
        if foreign:
            commands = " and ".join(
                f"`edge release key rotate KEYS --role {role} --public {role}.key.pub`"
                for role in foreign
            )
            raise TrustError(
                "not-online-key",
                f"Root {root.version} names another {' and '.join(foreign)} key than this"
                " server's.",
                f"With the .pub files of this server's data folder: {commands}, then publish.",
            )

    def _foreign(self, root: Root) -> list[str]:
        """Online roles for which the root does not name this server's key."""
        keys = self._keys
        named = {
            "fleet": (keys.fleet, root.fleet.keys.values() if root.fleet else ()),
            "snapshot": (keys.snapshot, root.roles["snapshot"].keys.values()),
            "timestamp": (keys.timestamp, root.roles["timestamp"].keys.values()),
        }
        return [role for role, (key, known) in named.items() if key.public not in known]

    def _check_targets(self, trusted: Trusted, data: bytes) -> Targets:
        new, known = parse_targets(data), trusted.targets
        check_signed(new, trusted.root.roles["targets"], "targets")
        if known is not None and (
            new.version < known.version or (new.version == known.version and known.data != data)
        ):
            raise TrustError(
                "rollback",
                f"The targets have version {new.version}; {known.version} are published already.",
                "Sign with the folder that holds the newest metadata.",
            )
        if self._now() >= new.expires_s:
            raise TrustError(
                "expired-metadata",
                f"The targets (version {new.version}) have expired.",
                "Sign them anew: `edge release key renew`.",
            )
        return new

    def _complete(self, trusted: Trusted) -> None:
        """Make what is missing, does not belong together, or has aged."""
        targets = trusted.targets
        stored = self._read("targets")
        if targets is None or stored is None:
            return
        if next_wanted(trusted) is not None or self._aged(trusted.snapshot, SNAPSHOT_S):
            self._make(trusted, targets)
        elif self._aged(trusted.timestamp, TIMESTAMP_S):
            self._make_timestamp(trusted)

    def _aged(self, metadata: object, life_s: int) -> bool:
        expires_s: float = getattr(metadata, "expires_s", 0)
        return self._now() > expires_s - RENEW_SHARE * life_s

    def _make(self, trusted: Trusted, targets: Targets) -> None:
        """A snapshot of these targets, and a timestamp of it."""
        now = int(self._now())
        above = trusted.timestamp.snapshot.version if trusted.timestamp else 0
        version = max(trusted.versions["snapshot"], above) + 1
        snapshot = md.make_snapshot(
            version, targets.data, now, now + SNAPSHOT_S, self._keys.snapshot
        )
        self._storage.write(self._folder / "snapshot.json", snapshot)
        stamp = self._new_timestamp(trusted, snapshot, now)
        self._storage.write(self._folder / "timestamp.json", stamp)
        after = update_timestamp(trusted, stamp, now)
        after = update_snapshot(after, snapshot, now)
        self._trusted = update_targets(after, targets.data, now)
        log.info("metadata: %s", self._trusted.versions)

    def _make_timestamp(self, trusted: Trusted) -> None:
        now = int(self._now())
        if trusted.snapshot is None:
            return
        stamp = self._new_timestamp(trusted, trusted.snapshot.data, now)
        self._storage.write(self._folder / "timestamp.json", stamp)
        self._trusted = update_timestamp(trusted, stamp, now)

    def _new_timestamp(self, trusted: Trusted, snapshot: bytes, now: int) -> bytes:
        version = trusted.versions["timestamp"] + 1
        key = self._keys.timestamp
        return md.make_timestamp(version, snapshot, now, now + TIMESTAMP_S, key)

    def _load_roots(self) -> list[bytes]:
        roots: list[bytes] = []
        while (path := self._folder / f"{len(roots) + 1}.root.json").exists():
            roots.append(path.read_bytes())
        return roots

    def _read(self, role: RoleName) -> bytes | None:
        path = self._folder / f"{role}.json"
        return path.read_bytes() if path.exists() else None
