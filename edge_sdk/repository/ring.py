"""The offline half of a TUF repository: root and targets keys, and the metadata they sign.

::

    KEYS/
      root-1.pem, root-2.pem, targets-1.pem   private keys, each protected by a passphrase
      *.pem.pub                               their public halves
      metadata/1.root.json, 2.root.json, ...  every root there has been
      metadata/targets.json                   the newest targets
      metadata/pending.root.json              a root that still lacks signatures

Private keys may lie elsewhere (one per person, on media of their own) and be named when they are
needed. A new root comes into force only when enough keys of the root before it *and* of itself have
signed; until then it is pending, and each holder adds a signature in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Targets

from edge_sdk.bundle.release import METADATA_NAME, open_release, sign_release
from edge_sdk.bundle.signing import SigningKey, generate_key, load_public, public_path, save_key
from edge_sdk.bundle.tuf_metadata import check_signed, parse_targets, target_path
from edge_sdk.bundle.tuf_trust import begin, update_root
from edge_sdk.durable import Storage
from edge_sdk.errors import TrustError, UsageError
from edge_sdk.repository import metadata as md
from edge_sdk.repository.metadata import KEY_ROLES, KeyRole
from edge_sdk.repository.refusals import already_there, check_threshold, read_file, too_few

DAY_S = 86_400
ROOT_DAYS = 730
TARGETS_DAYS = 365
OFFLINE: tuple[KeyRole, ...] = ("root", "targets")
"""Roles whose private keys never lie on a server."""

Unlock = Callable[[Path], SigningKey]
"""Loads a private key, asking for its passphrase when it must."""


@dataclass
class Ring:
    """The ceremony's folder.

    Args:
        folder: ``KEYS``.
        storage: through which every durable step goes.
        unlock: loads a private key.
        now: seconds since the epoch.
        elsewhere: private keys that lie outside the folder.
    """

    folder: Path
    storage: Storage
    unlock: Unlock
    now: Callable[[], float]
    elsewhere: Sequence[Path] = ()
    _opened: dict[Path, SigningKey] = field(default_factory=dict)

    # --- what is there ---

    @property
    def metadata_folder(self) -> Path:
        """Where the metadata lies."""
        return self.folder / "metadata"

    @property
    def begun(self) -> bool:
        """Whether there is a root in force."""
        return self._root_path(1).exists()

    def roots(self) -> list[bytes]:
        """Every root in force, oldest first, once the chain holds.

        Raises:
            TrustError: ``trust.no-repository``, or the chain does not hold.
        """
        found: list[bytes] = []
        while (path := self._root_path(len(found) + 1)).exists():
            found.append(read_file(path))
        if not found:
            raise TrustError(
                "no-repository",
                f"{self.folder} holds no root metadata.",
                "Begin with `edge release key init`, or correct the path.",
            )
        trusted = begin(found[0])
        for data in found[1:]:
            trusted = update_root(trusted, data)
        return found

    def root(self) -> Metadata[Root]:
        """The newest root in force."""
        return md.read(self.roots()[-1], Root)

    def targets_bytes(self) -> bytes:
        """The newest targets as they are signed."""
        return read_file(self._targets_path)

    def targets(self) -> Metadata[Targets]:
        """The newest targets."""
        return md.read(self.targets_bytes(), Targets)

    def pending(self) -> Metadata[Root] | None:
        """A root that still lacks signatures; one that came into force elsewhere does not count."""
        if not self._pending_path.exists():
            return None
        found = md.read(read_file(self._pending_path), Root)
        overtaken = self.begun and found.signed.version <= self.root().signed.version
        return None if overtaken else found

    def changes(self) -> list[str]:
        """What the pending root changes, a line each."""
        pending = self.pending()
        before = self.root().signed if self.begun else None
        return md.describe_changes(before, pending.signed) if pending is not None else []

    def private_keys(self) -> dict[str, Path]:
        """Private keys at hand, by TUF key id; a missing public half is derived by unlocking."""
        found: dict[str, Path] = {}
        for path in (*sorted(self.folder.glob("*.pem")), *self.elsewhere):
            if public_path(path).exists():
                public = load_public(public_path(path))
            else:
                public = self._open(path).public
            found[md.tuf_keyid(public)] = path
        return found

    # --- changing it ---

    def init(
        self,
        *,
        root_keys: int,
        threshold: int,
        public: Mapping[KeyRole, Sequence[bytes]],
        passphrase: bytes,
    ) -> None:
        """Make the offline keys, the first root and empty targets.

        Args:
            root_keys: how many root keys to make.
            threshold: how many of them must sign.
            public: raw public keys of the online roles, and root or targets keys made elsewhere.
            passphrase: protects each private key.

        Raises:
            StorageError: ``storage.file-exists``: there are keys already.
            TrustError: ``trust.bad-threshold`` or ``trust.no-passphrase``.
        """
        self.check_new(root_keys=root_keys, threshold=threshold, public=public)
        if not passphrase:
            raise TrustError(
                "no-passphrase",
                "Root and targets keys are never written without a passphrase.",
                "Give one with --passphrase-file or --passphrase-env, or type it when asked.",
            )
        made: dict[KeyRole, list[bytes]] = {role: list(public.get(role, ())) for role in KEY_ROLES}
        for _ in range(root_keys):
            made["root"].append(self.make_key("root", passphrase).public)
        if not made["targets"]:
            made["targets"].append(self.make_key("targets", passphrase).public)
        root = Metadata(md.new_root(made, threshold, self._now_s, self._expires(ROOT_DAYS)))
        self._save_targets(root.signed, md.new_targets(self._now_s, self._expires(TARGETS_DAYS)))
        self._offer(root)

    def check_new(
        self, *, root_keys: int, threshold: int, public: Mapping[KeyRole, Sequence[bytes]]
    ) -> None:
        """Refuse what :meth:`init` would refuse, before anybody is asked for a passphrase.

        Raises:
            StorageError: ``storage.file-exists``: there are keys already.
            TrustError: ``trust.bad-threshold``.
        """
        if self.begun or self._pending_path.exists():
            raise already_there(self.folder)
        check_threshold(threshold, len(set(public.get("root", ()))) + root_keys, "root")

    def unlock_root(self) -> None:
        """Unlock the root keys that are here.

        Raises:
            TrustError: one of them does not unlock.
        """
        self._at_hand(self.root().signed, "root")

    def make_key(self, role: KeyRole, passphrase: bytes) -> SigningKey:
        """A new private key for an offline role, under the next free name."""
        number = 1
        while (path := self.folder / f"{role}-{number}.pem").exists() or public_path(path).exists():
            number += 1
        key = generate_key()
        save_key(key, path, passphrase)
        self._opened[path] = key
        return key

    def change(self, edit: Callable[[Root], None]) -> bool:
        """Make the next root.

        Returns:
            Whether it is in force; otherwise it is pending and lacks signatures.

        Raises:
            TrustError: ``trust.bad-threshold``; ``trust.root-pending``: another change is.
        """
        if self.pending() is not None:
            raise TrustError(
                "root-pending",
                "A root that lacks signatures is pending already.",
                "Add them with `edge release key sign`, or give it up with `--discard`.",
            )
        root: Root = self.root().signed
        edit(root)
        for role in KEY_ROLES:
            check_threshold(md.role_threshold(root, role), len(md.role_keyids(root, role)), role)
        md.new_version(root, self._now_s, self._expires(ROOT_DAYS))
        return self._offer(Metadata(root))

    def sign_pending(self) -> bool:
        """Add the signatures that can be made here to the pending root; whether it is in force.

        Raises:
            UsageError: ``usage.nothing-pending``.
        """
        return self._offer(self._needed_pending())

    def add_signatures(self, copy: Path) -> None:
        """Take over the signatures that others made on a copy of the pending root.

        Raises:
            UsageError: ``usage.nothing-pending``, or ``usage.other-root``: it is another root.
        """
        pending, theirs = self._needed_pending(), md.read(read_file(copy), Root)
        if theirs.signed_bytes != pending.signed_bytes:
            raise UsageError(
                "other-root",
                f"{copy} is not a copy of the root that is pending here.",
                "Take metadata/pending.root.json of whoever signed; it must come from yours.",
            )
        pending.signatures.update(theirs.signatures)
        self.storage.write(self._pending_path, md.write(pending))

    def discard_pending(self) -> None:
        """Give the pending root up."""
        self.storage.remove(self._pending_path)

    def missing_signatures(self) -> dict[str, int]:
        """How many signatures the pending root lacks, by the version of the root that asks."""
        pending = self.pending()
        return self._lacking(pending) if pending is not None else {}

    def sign_release(self, path: str, envelope: bytes, profiles: Sequence[str]) -> None:
        """Name a release in the targets, under the next version, and sign them."""
        targets = self.targets().signed
        md.add_target(targets, path, envelope, profiles)
        self.renew_targets(targets)

    def renew_targets(self, targets: Targets | None = None) -> None:
        """Sign the targets under the next version, so that they live on."""
        targets = targets or self.targets().signed
        md.new_version(targets, self._now_s, self._expires(TARGETS_DAYS))
        self._save_targets(self.root().signed, targets)

    def sign_folder(self, folder: Path) -> tuple[str, int]:
        """Sign a release folder: its envelope, the targets that name it, and their copies in it.

        Returns:
            The target's path, and the version of the targets.

        Raises:
            StorageError, TrustError, ContractError: as :func:`open_release`; nothing is signed.
        """
        release = open_release(folder)
        keys = self._at_hand(self.root().signed, "targets")
        wanted = md.role_threshold(self.root().signed, "targets")
        if len(keys) < wanted:
            raise too_few("targets", len(keys), wanted)
        if release.envelope_bytes is None:
            sign_release(folder, keys[0], storage=self.storage)
            release = open_release(folder)
        manifest = release.manifest
        path = target_path(manifest.release, manifest.version)
        self.sign_release(path, release.envelope_bytes or b"", sorted(manifest.ladders))
        self.copy_to(folder / METADATA_NAME)
        return path, self.targets().signed.version

    def copy_to(self, folder: Path) -> None:
        """Copy what may be published: every root, and the targets."""
        for version, data in enumerate(self.roots(), 1):
            self.storage.write(folder / f"{version}.root.json", data)
        self.storage.write(folder / "targets.json", self.targets_bytes())

    def targets_hold(self) -> bool:
        """Whether the targets are signed as the newest root asks."""
        root = begin(self.roots()[-1]).root
        try:
            check_signed(parse_targets(self.targets_bytes()), root.roles["targets"], "targets")
        except TrustError:
            return False
        return True

    # --- inside ---

    def _needed_pending(self) -> Metadata[Root]:
        pending = self.pending()
        if pending is None:
            raise UsageError(
                "nothing-pending",
                "There is no root that lacks signatures.",
                "Change something with `edge release key add`, `rotate` or `revoke` first.",
            )
        return pending

    @property
    def _targets_path(self) -> Path:
        return self.metadata_folder / "targets.json"

    @property
    def _pending_path(self) -> Path:
        return self.metadata_folder / "pending.root.json"

    def _root_path(self, version: int) -> Path:
        return self.metadata_folder / f"{version}.root.json"

    @property
    def _now_s(self) -> int:
        return int(self.now())

    def _expires(self, days: int) -> int:
        return self._now_s + days * DAY_S

    def _open(self, path: Path) -> SigningKey:
        if path not in self._opened:
            self._opened[path] = self.unlock(path)
        return self._opened[path]

    def _at_hand(self, root: Root, role: KeyRole) -> list[SigningKey]:
        """The role's private keys that are here, unlocked."""
        known = self.private_keys()
        wanted = [keyid for keyid in md.role_keyids(root, role) if keyid in known]
        return [self._open(known[keyid]) for keyid in wanted]

    def _offer(self, root: Metadata[Root]) -> bool:
        """Sign a root with what is here, and put it into force once enough have signed."""
        keys = {key.keyid: key for key in self._at_hand(root.signed, "root")}
        if root.signed.version > 1:
            keys.update({key.keyid: key for key in self._at_hand(self.root().signed, "root")})
        md.add_signatures(root, keys.values())
        if self._lacking(root):
            self.storage.write(self._pending_path, md.write(root))
            return False
        self.storage.write(self._root_path(root.signed.version), md.write(root))
        if self._pending_path.exists():
            self.storage.remove(self._pending_path)
        return True

    def _lacking(self, root: Metadata[Root]) -> dict[str, int]:
        """Signatures that are missing for the root before it, and for itself."""
        asked = [root.signed]
        if root.signed.version > 1:
            asked.insert(0, self.root().signed)
        lacking = {}
        for asks in asked:
            result = asks.get_verification_result("root", root.signed_bytes, root.signatures)
            if not result.verified:
                lacking[str(asks.version)] = result.missing
        return lacking

    def _save_targets(self, root: Root, targets: Targets) -> None:
        keys = self._at_hand(root, "targets")
        threshold = md.role_threshold(root, "targets")
        if len(keys) < threshold:
            raise too_few("targets", len(keys), threshold)
        self.storage.write(self._targets_path, md.write(md.signed_by(targets, keys)))
