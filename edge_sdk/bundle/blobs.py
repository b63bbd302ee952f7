"""Content-addressed blobs: a file is named by the SHA-256 of its bytes."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.bundle.digest import bytes_digest, file_digest, sha256
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.durable import Storage
from edge_sdk.errors import ContractError, StorageError, TrustError

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a SHA-256 in lower-case hexadecimal, hence safe as a file name."""
    return _DIGEST.fullmatch(text) is not None


def chunk_count(size_bytes: int) -> int:
    """Number of chunks of a blob; an empty blob has none."""
    return -(-size_bytes // CHUNK_BYTES)


def chunk_size(ref: BlobRef, index: int) -> int:
    """Bytes in chunk ``index`` of ``ref``."""
    return min(CHUNK_BYTES, ref.size_bytes - index * CHUNK_BYTES)


def check_blob_ref(ref: BlobRef) -> None:
    """Refuse a reference that cannot be right, before its names reach the disk.

    Raises:
        ContractError: ``contract.bad-blob-ref``.
    """
    problem = ""
    if not is_digest(ref.digest) or not all(map(is_digest, ref.chunks)):
        problem = "a digest is not 64 lower-case hexadecimal digits"
    elif ref.size_bytes < 0 or len(ref.chunks) != chunk_count(ref.size_bytes):
        problem = f"{ref.size_bytes} bytes do not make {len(ref.chunks)} chunks"
    if problem:
        raise ContractError(
            "bad-blob-ref",
            f"The reference to blob {ref.digest[:80]!r} is wrong: {problem}.",
            "Build the release again with this version of edge-sdk.",
        )


def blob_ref(data: bytes | Path) -> BlobRef:
    """Digest, size and chunk hashes of bytes or of a file (read chunk by chunk)."""
    expected = len(data) if isinstance(data, bytes) else data.stat().st_size
    whole, chunks, size = sha256(expected), [], 0
    for chunk in _chunks(data):
        whole.update(chunk)
        chunks.append(bytes_digest(chunk))
        size += len(chunk)
    return BlobRef(digest=whole.hexdigest(), size_bytes=size, chunks=tuple(chunks))


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]
        return
    with data.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            yield chunk


class BlobStore:
    """A folder of blobs.

    Args:
        folder: created on the first write.
        storage: through which every change is made durable.
    """

    def __init__(self, folder: Path, storage: Storage) -> None:
        self.folder = folder
        self._storage = storage

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie.

        Raises:
            ContractError: ``contract.bad-blob-ref`` when ``digest`` is no digest.
        """
        if not is_digest(digest):
            raise ContractError(
                "bad-blob-ref",
                f"{digest[:80]!r} is not a blob's digest.",
                "A digest is the SHA-256 of the blob: 64 lower-case hexadecimal digits.",
            )
        return self.folder / digest

    def has(self, ref: BlobRef) -> bool:
        """Whether a blob of the right name and size is there; its content is not read."""
        try:
            return self.path(ref.digest).stat().st_size == ref.size_bytes
        except FileNotFoundError:
            return False

    def put(self, data: bytes) -> BlobRef:
        """Store bytes durably; storing them twice writes once."""
        ref = blob_ref(data)
        if not self.has(ref):
            self._storage.write(self.path(ref.digest), data)
        return ref

    def verify(self, digest: str) -> None:
        """Read a blob through and compare it with its name.

        Raises:
            StorageError: ``storage.blob-missing`` or ``storage.unreadable``.
            TrustError: ``trust.blob-damaged``.
        """
        path = self.path(digest)
        try:
            actual = file_digest(path)
        except OSError as error:
            raise _unreadable(error, path) from error
        if actual != digest:
            raise _damaged(path, actual)

    def read(self, digest: str) -> bytes:
        """A blob's bytes, verified.

        Raises:
            StorageError: ``storage.blob-missing`` or ``storage.unreadable``.
            TrustError: ``trust.blob-damaged``.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(error, path) from error
        actual = bytes_digest(data)
        if actual != digest:
            raise _damaged(path, actual)
        return data

    def mapped(self, digest: str) -> memoryview:
        """A blob's bytes without a copy and unverified; what is not used is never read.

        Raises:
            StorageError: ``storage.blob-missing`` or ``storage.unreadable``.
        """
        path = self.path(digest)
        if not path.is_file():
            self.verify(digest)  # says what is wrong
        try:
            with path.open("rb") as handle:
                return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise StorageError(
                "unreadable",
                f"Cannot read {path}: {error}.",
                "Check the file's permissions and the health of the disk.",
            ) from error

    def remove(self, digest: str) -> None:
        """Delete a blob if it is there."""
        self._storage.remove(self.path(digest))

    def digests(self) -> set[str]:
        """Every blob that is there, by name."""
        if not self.folder.is_dir():
            return set()
        return {entry.name for entry in self.folder.iterdir() if is_digest(entry.name)}


def _unreadable(error: OSError, path: Path) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return StorageError(
            "blob-missing",
            f"The blob {path.name[:12]} is not in {path.parent}.",
            "Copy the folder again completely, or build the release again.",
        )
    return StorageError(
        "unreadable",
        f"Cannot read {path}: {error.strerror or error}.",
        "Check the file's permissions and the health of the disk.",
    )


def _damaged(path: Path, actual: str) -> TrustError:
    return TrustError(
        "blob-damaged",
        f"{path} holds other bytes than its name says (SHA-256 {actual[:12]}).",
        "It was changed or damaged after it was written; fetch or build it again.",
    )
