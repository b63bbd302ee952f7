"""A TUF repository in memory, written with python-tuf, that can be made to misbehave."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from tuf.api.metadata import Root, Targets

from edge_sdk.bundle.signing import SigningKey, generate_key
from edge_sdk.repository import metadata as md

NOW_S = 1_790_000_000
DAY_S = 86_400
KEYS = tuple(generate_key() for _ in range(12))
"""Made once: what a test needs is that they differ, not that they are new."""


@dataclass
class Repository:
    """Root 2 of 3, one key for each other role. ``files`` is what a client may fetch.

    Every change makes new objects, so a shallow copy taken before stays as it was.
    """

    fleet: SigningKey = KEYS[0]
    now_s: int = NOW_S
    keys: dict[str, list[SigningKey]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {
            "root": list(KEYS[1:4]),
            "targets": [KEYS[4]],
            "snapshot": [KEYS[5]],
            "timestamp": [KEYS[6]],
            "fleet": [self.fleet],
        }
        public = {role: [key.public for key in self.keys[role]] for role in md.KEY_ROLES}
        self.root = md.new_root(public, 2, self.now_s, self.now_s + 365 * DAY_S)
        self.targets = md.new_targets(self.now_s, self.now_s + 90 * DAY_S)
        self.snapshot_version = self.timestamp_version = 0
        self.sign_root(self.keys["root"][:2])
        self.sign_targets()
        self.resign()

    @property
    def anchor(self) -> bytes:
        """The root that devices are provisioned with."""
        return self.files["1.root"]

    def sign_root(self, by: Sequence[SigningKey]) -> None:
        """Publish the root as it is now."""
        root: Root = copy.deepcopy(self.root)
        self.files[f"{root.version}.root"] = md.write(md.signed_by(root, by))

    def change_root(self, by: Sequence[SigningKey] | None = None) -> None:
        """Publish the root, counted up."""
        md.new_version(self.root, self.now_s, self.now_s + 365 * DAY_S)
        self.sign_root(self.keys["root"][:2] if by is None else by)

    def replace_key(
        self, role: md.KeyRole, new: SigningKey, by: Sequence[SigningKey] | None = None
    ) -> SigningKey:
        """Rotate the role's first key in the root; the old one."""
        old = self.keys[role][0]
        signers = list(self.keys["root"][:2])
        md.remove_key(self.root, role, md.tuf_keyid(old.public))
        md.add_key(self.root, role, new.public)
        self.keys[role] = [new, *self.keys[role][1:]]
        if role == "root":
            signers.append(new)
        self.change_root(signers if by is None else by)
        return old

    def add(self, path: str, envelope: bytes, profiles: Sequence[str] = ("rpi4",)) -> None:
        """Name a release in the targets, and publish everything above them."""
        md.add_target(self.targets, path, envelope, profiles)
        self.change_targets()

    def change_targets(self) -> None:
        """Publish the targets, counted up, and everything above them."""
        md.new_version(self.targets, self.now_s, self.now_s + 90 * DAY_S)
        self.sign_targets()
        self.resign()

    def sign_targets(self) -> None:
        """Publish the targets as they are now."""
        targets: Targets = copy.deepcopy(self.targets)
        self.files[f"{targets.version}.targets"] = md.write(
            md.signed_by(targets, self.keys["targets"])
        )

    def resign(self, *, snapshot: bool = True) -> None:
        """Publish a new timestamp, and with it a new snapshot."""
        if snapshot:
            self.snapshot_version += 1
            self.files[f"{self.snapshot_version}.snapshot"] = md.make_snapshot(
                self.snapshot_version,
                self.files[f"{self.targets.version}.targets"],
                self.now_s,
                self.now_s + 30 * DAY_S,
                self.keys["snapshot"][0],
            )
        self.timestamp_version += 1
        self.files["timestamp"] = md.make_timestamp(
            self.timestamp_version,
            self.files[f"{self.snapshot_version}.snapshot"],
            self.now_s,
            self.now_s + DAY_S,
            self.keys["timestamp"][0],
        )

    def mark(self) -> dict[str, bytes]:
        """What can be fetched at this moment, for an attacker to keep."""
        return dict(self.files)
