"""The release files on the server's disk: blobs by digest, and one folder per release.

::

    DATA/blobs/<digest>                                artifacts, golden files and envelopes
    DATA/releases/<name>/<version>/envelope.json       the signed manifest as published
    DATA/releases/<name>/<version>/manifest.json       its payload, for people to read

A blob appears under its name only when all its bytes have been verified and are on the disk, so a
killed upload leaves nothing that could be mistaken for a blob.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from pathlib import Path

from edge_sdk.bundle.blobs import BlobStore, blob_ref, chunk_count
from edge_sdk.bundle.check import check_manifest
from edge_sdk.bundle.signing import signers
from edge_sdk.bundle.trust import open_envelope
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.envelope import MANIFEST_TYPE, Envelope
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef, Manifest
from edge_sdk.durable import DiskStorage, storage_error, sync_folder
from edge_sdk.errors import StorageError, TrustError

MAX_BLOB_BYTES = 512 * 1024 * 1024
ORPHAN_SECONDS = 24 * 3600.0
"""A blob that no release names is deleted after this long: its publisher has given up."""
_PARTIAL = ".part"


class Depot:
    """Blobs and envelopes of every published release.

    Args:
        data: the server's data folder.
        storage: through which every durable step goes.
        release_keys: key id to raw public key of who may sign releases; empty accepts any signer,
            devices then being the only ones to check.
    """

    def __init__(
        self, data: Path, storage: DiskStorage, release_keys: dict[str, bytes] | None = None
    ) -> None:
        self._storage = storage
        self._releases = data / "releases"
        self.blobs = BlobStore(data / "blobs", storage)
        self.release_keys = release_keys or {}

    def size_of(self, digest: str) -> int | None:
        """Bytes of a complete blob, None when it is not here."""
        try:
            return self.blobs.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def upload(self, digest: str) -> Upload:
        """Begin to receive a blob."""
        return Upload(self.blobs.path(digest), self._storage)

    def check_release(self, data: bytes) -> tuple[Manifest, tuple[str, ...]]:
        """The manifest in an envelope, and who signed it, once all of it holds.

        Raises:
            TrustError: ``trust.unsigned``, ``trust.untrusted-signer`` or ``trust.blob-damaged``.
            ContractError: the envelope or manifest is malformed or inconsistent.
            StorageError: ``storage.blob-missing``: a blob has not been uploaded.
        """
        envelope = open_envelope(data, "The release's envelope")
        keyids = self._check_signers(envelope)
        manifest = decode(envelope.payload, Manifest, "The release's manifest")
        check_manifest(manifest)
        for ref in manifest.blobs.values():
            self._check_blob(ref)
        return manifest, keyids

    def keep_release(self, manifest: Manifest, data: bytes) -> BlobRef:
        """Store a checked release's envelope; the reference that devices will be given."""
        folder = self._releases / manifest.release / manifest.version
        payload = open_envelope(data, "The release's envelope").payload
        self._storage.write(folder / "manifest.json", payload)
        self._storage.write(folder / "envelope.json", data)
        return self.blobs.put(data)

    def envelope_ref(self, digest: str) -> BlobRef:
        """The reference of a stored envelope."""
        return blob_ref(self.blobs.read(digest))

    def blobs_of(self, digest: str) -> dict[str, int]:
        """Digest to size of everything a device may need for the release, the envelope first.

        Args:
            digest: of the release's envelope.
        """
        data = self.blobs.read(digest)
        manifest = decode(open_envelope(data, "envelope").payload, Manifest, "manifest")
        sizes = {digest: len(data)}
        sizes.update((ref.digest, ref.size_bytes) for ref in manifest.blobs.values())
        return sizes

    def chunk(self, digest: str, index: int, count: int = 1) -> bytes | None:
        """One chunk, or as many from this one on; None when there is no such chunk here."""
        size = self.size_of(digest)
        if size is None or not 0 <= index < chunk_count(size):
            return None
        with self.blobs.path(digest).open("rb") as handle:
            handle.seek(index * CHUNK_BYTES)
            return handle.read(count * CHUNK_BYTES)

    def sweep(self, envelopes: list[str]) -> int:
        """Delete partial uploads and old blobs that no release in ``envelopes`` needs."""
        needed: set[str] = set()
        for digest in envelopes:
            needed.update(self.blobs_of(digest))
        removed = 0
        for path in self._old_files():
            if path.name.endswith(_PARTIAL) or path.name not in needed:
                self._storage.remove(path)
                removed += 1
        return removed

    def _old_files(self) -> list[Path]:
        if not self.blobs.folder.is_dir():
            return []
        limit = time.time() - ORPHAN_SECONDS
        return [path for path in self.blobs.folder.iterdir() if path.stat().st_mtime < limit]

    def _check_signers(self, envelope: Envelope) -> tuple[str, ...]:
        given = tuple(sorted({signature.keyid for signature in envelope.signatures}))
        if envelope.payloadType != MANIFEST_TYPE or not given:
            raise TrustError(
                "unsigned",
                "The release is not signed.",
                "Sign it with `edge release sign`, then publish again.",
            )
        if not self.release_keys:
            return given
        known = tuple(sorted(signers(envelope, self.release_keys)))
        if not known:
            raise TrustError(
                "untrusted-signer",
                f"The release is signed by {', '.join(given)}, whom this server does not trust.",
                "Sign it with a key the server was started with (--release-key).",
            )
        return known

    def _check_blob(self, ref: BlobRef) -> None:
        size = self.size_of(ref.digest)
        if size is None:
            raise StorageError(
                "blob-missing",
                f"The blob {ref.digest[:12]} has not been uploaded.",
                "Publish the release again; what the server has is not sent twice.",
            )
        if blob_ref(self.blobs.path(ref.digest)) != ref:
            raise TrustError(
                "blob-damaged",
                f"The blob {ref.digest[:12]} on the server is not what the manifest says.",
                "Build and sign the release again, or check the server's disk.",
            )


class Upload:
    """A blob on its way in. Use as a context manager; without :meth:`finish` nothing stays.

    Raises:
        StorageError: from every method: ``storage.disk-full`` or ``storage.write-failed``.
    """

    def __init__(self, path: Path, storage: DiskStorage) -> None:
        self._path = path
        self._storage = storage
        self._temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")
        self._hash = hashlib.sha256()
        self._size = 0
        self._done = False

    def __enter__(self) -> Upload:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._storage.step("write", self._path)
            self._handle = self._temporary.open("wb")
        except OSError as error:
            raise storage_error(error, self._path) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()
        if not self._done:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StorageError: ``storage.blob-too-large`` beyond :data:`MAX_BLOB_BYTES`.
        """
        self._size += len(data)
        if self._size > MAX_BLOB_BYTES:
            raise StorageError(
                "blob-too-large",
                f"The blob {self._path.name[:12]} has more than {MAX_BLOB_BYTES} bytes.",
                "Split the model, or quantize it.",
            )
        self._hash.update(data)
        try:
            self._handle.write(data)
        except OSError as error:
            raise storage_error(error, self._path) from error

    def finish(self) -> None:
        """Verify the digest and give the blob its name, durably.

        Raises:
            TrustError: ``trust.blob-damaged``.
        """
        if self._hash.hexdigest() != self._path.name:
            raise TrustError(
                "blob-damaged",
                f"The bytes received for blob {self._path.name[:12]} have another digest.",
                "They were damaged on the way or on the publisher's disk; publish again.",
            )
        try:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._storage.step("rename", self._path)
            self._temporary.replace(self._path)
            self._done = True
            self._storage.step("done", self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from error
