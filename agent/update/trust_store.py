"""The trusted metadata on the device's disk.

::

    STATE_DIR/tuf/root.json, timestamp.json, snapshot.json, targets.json
    STATE_DIR/tuf/anchor.json   which trust file all of it descends from, and the time floor

Every file is replaced atomically, after it was verified and before it is acted on. A power cut
between two of them leaves what the verifier calls an intermediate state: older metadata still
protects from older, and the next refresh completes it. Nothing here is needed to boot or to serve.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from edge_sdk.bundle.tuf_metadata import MAX_BYTES, RoleName
from edge_sdk.bundle.tuf_trust import Trusted, digest_of, restore
from edge_sdk.contracts.base import Wire, decode, encode
from edge_sdk.durable import Storage
from edge_sdk.errors import ContractError, StorageError, TrustError

log = logging.getLogger(__name__)

FLOOR_STEP_S = 3600.0
"""The floor is written when it has moved this far; flash is not worn by every message."""


class Anchor(Wire, kw_only=True):
    """What the metadata beside it belongs to."""

    digest: str
    """SHA-256 of the root that the device was provisioned with."""
    floor_s: float = 0.0


class TrustStore:
    """Trusted metadata below the state directory.

    Args:
        state_dir: the updater's folder.
        storage: through which every durable step goes.
    """

    def __init__(self, state_dir: Path, storage: Storage) -> None:
        self._folder = state_dir / "tuf"
        self._storage = storage
        self._anchor = Anchor(digest="")

    @property
    def floor_s(self) -> float:
        """The time floor as it is on the disk."""
        return self._anchor.floor_s

    def load(self, root: bytes) -> Trusted:
        """What is trusted here, for a device provisioned with ``root``.

        Metadata that descends from another root is no longer of use: somebody with access to the
        device's files has provisioned it anew.

        Raises:
            TrustError: the given root itself does not hold.
        """
        anchor, found = digest_of(root), self._read_anchor()
        if found is not None and found.digest != anchor:
            log.warning("The trust file names another root; earlier metadata is dropped.")
            self._drop_all()
        self._anchor = found if found and found.digest == anchor else Anchor(digest=anchor)
        if self._anchor is not found:
            self._write_anchor()
        try:
            return restore(self._read("root") or root, self._read)
        except TrustError as error:
            log.error("The stored root does not hold (%s); going back to the trust file's.", error)
            return restore(root, self._read)

    def save(self, before: Trusted, after: Trusted) -> None:
        """Write what has changed; a role that is trusted no more is deleted.

        The root goes first: what it replaces is not believed under it, deleted or not.
        """
        roles: tuple[RoleName, ...] = ("root", "timestamp", "snapshot", "targets")
        for role in roles:
            old, new = getattr(before, role), getattr(after, role)
            if new is old:
                continue
            path = self._folder / f"{role}.json"
            try:
                if new is None:
                    self._storage.remove(path)
                else:
                    self._storage.write(path, new.data)
            except StorageError as error:
                log.error("The %s metadata cannot be kept: %s", role, error)

    def save_floor(self, floor_s: float) -> None:
        """Keep the time floor, when it has moved far enough or was taken back."""
        if 0 <= floor_s - self._anchor.floor_s < FLOOR_STEP_S:
            return
        self._anchor = Anchor(digest=self._anchor.digest, floor_s=floor_s)
        self._write_anchor()

    def _drop_all(self) -> None:
        for role in MAX_BYTES:
            try:
                self._storage.remove(self._folder / f"{role}.json")
            except StorageError as error:
                log.error("Old metadata cannot be deleted: %s", error)

    def _write_anchor(self) -> None:
        try:
            self._storage.write(self._folder / "anchor.json", encode(self._anchor))
        except StorageError as error:
            log.error("The time floor cannot be kept: %s", error)

    def _read_anchor(self) -> Anchor | None:
        path = self._folder / "anchor.json"
        try:
            return decode(path.read_bytes(), Anchor, str(path))
        except (OSError, ContractError, msgspec.MsgspecError):
            return None

    def _read(self, role: RoleName) -> bytes | None:
        try:
            with (self._folder / f"{role}.json").open("rb") as handle:
                return handle.read(MAX_BYTES[role] + 1)
        except OSError:
            return None
