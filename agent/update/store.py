"""The updater's files.

::

    STATE_DIR/
      state.json              the state; replacing it is the only commit point
      blobs/<digest>          complete, verified blobs, signed envelopes among them
      parts/<digest>          blobs that are still arriving, chunks at their place
      manifests/<digest>.json verified manifests, named by their envelope, for the worker to read

Which chunks of a part are there is not recorded anywhere: on resume the part is read and every
chunk compared with its hash. So chunks need no fsync of their own, which on an SD card costs more
than the transfer, and a power cut costs at most a second transfer of what had not reached the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from agent.update.state import ReleaseRecord, UpdateState
from edge_sdk.bundle.blobs import BlobStore, chunk_size, is_digest
from edge_sdk.bundle.trust import open_envelope
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.durable import Storage
from edge_sdk.errors import ContractError, EdgeError, StorageError, TrustError


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
        self._parts = state_dir / "parts"
        self._manifests = state_dir / "manifests"
        self.blobs = BlobStore(state_dir / "blobs", storage)

    def load_state(self) -> UpdateState:
        """The persistent state; a fresh one when there is none.

        Raises:
            ContractError: ``contract.malformed`` or ``contract.too-new``.
            StorageError: ``storage.unreadable``.
        """
        try:
            data = self._state_path.read_bytes()
        except FileNotFoundError:
            return UpdateState()
        except OSError as error:
            raise StorageError(
                "unreadable",
                f"Cannot read {self._state_path}: {error.strerror or error}.",
                "Check the file's permissions and the health of the disk.",
            ) from error
        state = decode(data, UpdateState, str(self._state_path))
        if state.active is not None and state.active not in state.slots:
            raise ContractError(
                "malformed",
                f"{self._state_path} names slot {state.active!r} active, which is empty.",
                "Move the file away; the device then installs its desired release anew.",
            )
        return state

    def save_state(self, state: UpdateState) -> None:
        """Replace the persistent state atomically."""
        self._storage.write(self._state_path, encode(state))

    def set_state_aside(self) -> Path:
        """Keep an unreadable state file for inspection, out of the way."""
        aside = self._state_path.with_suffix(".damaged.json")
        self._storage.finish(self._state_path, aside)
        return aside

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

    def finish(self, ref: BlobRef) -> None:
        """Turn a complete part into a blob.

        Raises:
            TrustError: ``trust.blob-damaged``: the chunks hold but the whole does not, so the
                reference contradicts itself.
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
                f"The chunks of blob {ref.digest[:12]} are right but the whole is not.",
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


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file())
