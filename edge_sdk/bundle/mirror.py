"""A folder of blobs by digest, ready to be served by HTTP; see :mod:`edge_sdk.contracts.mirror`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.release import Release
from edge_sdk.durable import DiskStorage, Storage


def lay_out(
    release: Release,
    folder: Path,
    notify: Callable[[str], None] = lambda _: None,
    *,
    storage: Storage | None = None,
) -> list[str]:
    """Copy what is missing in ``folder``; digests of what was copied.

    Args:
        release: opened, and so verified.
        folder: made when missing.
        notify: told each blob's digest when it is in place.
        storage: through which files are written: whole, or not at all.

    Raises:
        StorageError: a blob cannot be read, or a failed write.
    """
    store, added = BlobStore(folder, storage or DiskStorage()), []
    for ref in release.manifest.blobs.values():
        if not store.has(ref):
            store.put(release.blob_path(ref.digest).read_bytes())
            added.append(ref.digest)
        notify(ref.digest)
    return added
