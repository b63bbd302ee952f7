"""The updater's files.

::

    STATE_DIR/
      state.json              the state; replacing it is the only commit point
      state.json.1            the state before it, read when the newer one is damaged
      state.damaged-<n>.json  unreadable states, kept for inspection; the oldest are deleted
      desired.json            the signed desired state accepted last
      blobs/<digest>          complete, verified blobs, signed envelopes among them
      parts/<digest>          blobs that are still arriving, chunks at their place
      manifests/<digest>.json verified manifests, named by their envelope, for the worker to read

Which chunks of a part are there is not recorded anywhere: on resume the part is read and every
chunk compared with its hash. So chunks need no fsync of their own, which on an SD card costs more
than the transfer, and a power cut costs at most a second transfer of what had not reached the disk.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from agent.update.ports import PlacedRelease
from agent.update.state import ReleaseRecord, UpdateState
from edge_sdk.bundle.blobs import BlobStore, chunk_size, is_digest
from edge_sdk.bundle.trust import open_envelope
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.durable import Storage
from edge_sdk.errors import ContractError, EdgeError, StorageError, TrustError

log = logging.getLogger(__name__)

MAX_DAMAGED = 5
"""Unreadable state files kept for inspection."""

_DAMAGED = re.compile(r"state\.damaged-(\d{1,9})\.json")


class PieceStorage(Storage, Protocol):
    """A storage for files that arrive in pieces; :class:`edge_sdk.durable.DiskStorage` is one."""

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write a piece in place, not durably."""

    def finish(self, part: Path, path: Path) -> None:
        """Make a part durable under its final name."""


class DeviceStore:
    """Everything below the state directory that belongs to the updater."""

    def __init__(self, state_dir: Path, storage: PieceStorage) -> None:
        self._storage = storage
        self._state_path = state_dir / "state.json"
        self._previous_path = state_dir / "state.json.1"
        self._desired_path = state_dir / "desired.json"
        self._good: bytes | None = None
        """The state file's last content known to be good."""
        self._parts = state_dir / "parts"
        self._manifests = state_dir / "manifests"
        self.blobs = BlobStore(state_dir / "blobs", storage)

    def load_state(self) -> UpdateState | None:
        """The newest readable state; a fresh one when there has never been any; None when lost.

        Damaged files are set aside on the way.

        Raises:
            ContractError: ``contract.too-new``: a newer agent wrote it.
            StorageError: ``storage.unreadable``: this user may not read it.
        """
        for path in (self._state_path, self._previous_path):
            try:
                data = _read(path)
                if data is not None:
                    state = _decode_state(data, path)
                    self._good = data
                    return state
            except ContractError as error:
                if error.slug == "too-new":
                    raise
                log.error("%s It was kept as %s.", error.cause, self._set_aside(path))
        touched = self._damaged() or _files(self._manifests)
        return None if touched else UpdateState()

    @property
    def state_is_current(self) -> bool:
        """Whether the newest state file is there, rather than only the one before it."""
        return self._state_path.is_file() or self._good is None

    def save_state(self, state: UpdateState) -> None:
        """Replace the persistent state atomically, keeping the one before it.

        The copy is made from memory, not from the disk, whose content may have rotted since; it is
        written first, so that at least one of both files is whole whenever the power goes.

        Raises:
            StorageError: the state file is unchanged.
        """
        data = encode(state)
        if self._good is not None:
            self._storage.write(self._previous_path, self._good)
        self._storage.write(self._state_path, data)
        self._good = data

    def settle_state(self) -> None:
        """Make the state before the newest one the same.

        After a commit it still says that the release is on trial; a device that loses its newest
        state then would put it on trial again, or, where it is the first, serve nothing proven.

        Raises:
            StorageError: both states are unchanged.
        """
        if self._good is not None:
            self._storage.write(self._previous_path, self._good)

    def save_desired(self, payload: bytes) -> None:
        """Keep a signed desired state, from which the counter can be had when the state is lost."""
        if self.read_desired() != payload:
            self._storage.write(self._desired_path, payload)

    def read_desired(self) -> bytes:
        """The signed desired state accepted last, unverified; empty when there is none."""
        try:
            return self._desired_path.read_bytes()
        except OSError:
            return b""

    def stored_manifests(self) -> list[str]:
        """Digests of the envelopes whose manifests lie here."""
        return [path.stem for path in _files(self._manifests) if is_digest(path.stem)]

    def _set_aside(self, path: Path) -> Path:
        """Keep an unreadable state file for inspection, out of the way."""
        numbers = self._damaged()
        aside = path.with_name(f"state.damaged-{max(numbers, default=0) + 1}.json")
        try:
            self._storage.finish(path, aside)
            for number in numbers[: max(0, len(numbers) + 1 - MAX_DAMAGED)]:
                self._storage.remove(path.with_name(f"state.damaged-{number}.json"))
        except StorageError as error:
            log.warning("Damaged states could not be set aside: %s", error)
        return aside

    def _damaged(self) -> list[int]:
        """Numbers of the damaged states set aside, oldest first."""
        names = (_DAMAGED.fullmatch(path.name) for path in _files(self._state_path.parent))
        return sorted(int(match[1]) for match in names if match)

    def manifest_path(self, digest: str) -> Path:
        """Where the verified manifest in envelope ``digest`` lies for the worker."""
        return self._manifests / f"{digest}.json"

    def place_manifest(self, digest: str) -> None:
        """Write the manifest from its stored envelope, unless it is there already and equal.

        Raises:
            StorageError, TrustError, ContractError: the envelope is missing or damaged.
        """
        payload = open_envelope(self.blobs.read(digest), "the stored envelope").payload
        path = self.manifest_path(digest)
        if not path.is_file() or path.read_bytes() != payload:
            self._storage.write(path, payload)

    def placed(self, record: ReleaseRecord) -> PlacedRelease:
        """Where a release lies for those who run it."""
        return PlacedRelease(
            release=record.release,
            version=record.version,
            digest=record.digest,
            manifest_path=self.manifest_path(record.digest),
            blobs=self.blobs.folder,
        )

    def intact(self, record: ReleaseRecord) -> bool:
        """Whether every file of a release is there and unharmed; harmed ones are deleted."""
        damaged = [digest for digest in record.blobs if not self.check_blob(digest)]
        if damaged:
            return False
        try:
            self.place_manifest(record.digest)
        except EdgeError:
            return False
        return True

    def check_blob(self, digest: str) -> bool:
        """Read a blob back; a damaged one is deleted so that it is fetched anew."""
        try:
            self.blobs.verify(digest)
        except TrustError:
            self.blobs.remove(digest)
            return False
        except StorageError:
            return False
        return True

    def missing_chunks(self, ref: BlobRef) -> list[int]:
        """Indexes of the chunks that have not arrived, from what the disk holds.

        A part whose chunks are all there is finished first, so an empty list means: complete.
        """
        if self.blobs.has(ref):
            return []
        missing = self._missing_in_part(ref)
        if not missing:
            self.finish(ref)
        return missing

    def _missing_in_part(self, ref: BlobRef) -> list[int]:
        try:
            handle = (self._parts / ref.digest).open("rb")
        except FileNotFoundError:
            return list(range(len(ref.chunks)))
        with handle:
            return [
                index
                for index, digest in enumerate(ref.chunks)
                if hashlib.sha256(handle.read(CHUNK_BYTES)).hexdigest() != digest
            ]

    def put_chunk(self, ref: BlobRef, index: int, data: bytes) -> None:
        """Store a verified chunk.

        Raises:
            StorageError: ``storage.disk-full`` or ``storage.write-failed``.
        """
        self._storage.write_at(self._parts / ref.digest, index * CHUNK_BYTES, data)

    def put_piece(self, ref: BlobRef, offset: int, data: bytes) -> None:
        """Store bytes that were made here; :meth:`finish` verifies them.

        Raises:
            StorageError: as :meth:`put_chunk`.
        """
        self._storage.write_at(self._parts / ref.digest, offset, data)

    def finish(self, ref: BlobRef) -> None:
        """Turn a complete part into a blob.

        Raises:
            TrustError: ``trust.blob-damaged``: the whole is not what the reference says; what
                was there is deleted.
            StorageError: the disk fails.
        """
        if not ref.chunks:
            self.blobs.put(b"")
            return
        part = self._parts / ref.digest
        with part.open("rb") as handle:
            actual = hashlib.file_digest(handle, "sha256").hexdigest()
        if actual != ref.digest or part.stat().st_size != ref.size_bytes:
            self._storage.remove(part)
            raise TrustError(
                "blob-damaged",
                f"The parts of blob {ref.digest[:12]} are there but the whole is not right.",
                "The release is inconsistent; build it again.",
            )
        self._storage.finish(part, self.blobs.path(ref.digest))

    def missing_bytes(self, refs: Iterable[BlobRef]) -> int:
        """Bytes still to be fetched."""
        total = 0
        for ref in refs:
            total += sum(chunk_size(ref, index) for index in self.missing_chunks(ref))
        return total

    def collect_garbage(self, keep: set[str], keep_parts: bool) -> None:
        """Delete what nothing refers to.

        Args:
            keep: digests of blobs that stay; also names the envelopes whose manifests stay.
            keep_parts: leave the unfinished downloads of ``keep``, because one is under way.
        """
        for digest in sorted(self.blobs.digests() - keep):
            self.blobs.remove(digest)
        for path in _files(self._manifests):
            if path.stem not in keep or path.suffix != ".json":
                self._storage.remove(path)
        for path in _files(self._parts):
            if not keep_parts or path.name not in keep:
                self._storage.remove(path)
        for path in _files(self.blobs.folder):
            if not is_digest(path.name):
                self._storage.remove(path)


def _read(path: Path) -> bytes | None:
    """A state file's bytes, none of them when its sector is gone; None when it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise StorageError(
            "unreadable",
            f"Cannot read {path}: {error.strerror or error}.",
            "Check the file's permissions and the health of the disk.",
        ) from error


def _decode_state(data: bytes, path: Path) -> UpdateState:
    state = decode(data, UpdateState, str(path))
    if state.active is not None and state.active not in state.slots:
        raise ContractError(
            "malformed",
            f"{path} names slot {state.active!r} active, which is empty.",
            "Nothing: the state before it is used, or the release is recovered from its files.",
        )
    return state


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file())
