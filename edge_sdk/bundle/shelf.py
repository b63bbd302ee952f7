"""The files of a release, whether they lie in its folder or have to be built first.

A file that is built goes to memory, not to the disk: building takes milliseconds and happens in the
background, while a copy of every width would double what the release occupies, and would have to be
written safely and cleaned up. See ``docs/adr/0006``.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.digest import bytes_digest
from edge_sdk.contracts.manifest import Derivation
from edge_sdk.errors import StorageError, TrustError

DESCRIPTORS = Path("/proc/self/fd")


class Shelf:
    """Verified files of a release by digest.

    Args:
        store: the blobs that are there.
        derived: how the other files are built; :attr:`Manifest.derived`.
        descriptors: where this process's open files have paths; without it, built files pass
            through a temporary folder.
    """

    def __init__(
        self,
        store: BlobStore,
        derived: Mapping[str, Derivation],
        *,
        descriptors: Path = DESCRIPTORS,
    ) -> None:
        self._store = store
        self._derived = derived
        self._descriptors = descriptors

    def is_built(self, digest: str) -> bool:
        """Whether a file has to be built, because it is not stored itself."""
        return digest in self._derived and not self._store.path(digest).is_file()

    @contextmanager
    def opened(self, digest: str) -> Iterator[Path]:
        """A path at which a file can be read inside the block, its bytes verified.

        A program that maps the file into memory may go on using it afterwards.

        Raises:
            StorageError: ``storage.blob-missing``, ``storage.unreadable``, ``storage.no-memory``.
            TrustError: ``trust.blob-damaged`` or ``trust.wrong-result``.
            ContractError: ``contract.bad-recipe``.
        """
        if not self.is_built(digest):
            self._store.verify(digest)
            yield self._store.path(digest)
            return
        size = self._derived[digest].size_bytes
        with _memory_file(digest, size, self._descriptors) as (path, memory):
            self._build(digest, memory)
            yield path

    def read(self, digest: str) -> bytes:
        """A file's bytes, verified.

        Raises:
            EdgeError: as :meth:`opened`.
        """
        if not self.is_built(digest):
            return self._store.read(digest)
        target = bytearray(self._derived[digest].size_bytes)
        self._build(digest, memoryview(target))
        return bytes(target)

    def check(self, digest: str) -> None:
        """Build a file, whether it is stored or not, and compare it with its name.

        Raises:
            EdgeError: as :meth:`opened`.
        """
        self._build(digest, memoryview(bytearray(self._derived[digest].size_bytes)))

    def _build(self, digest: str, target: memoryview) -> None:
        from edge_sdk.recipes.build import build
        from edge_sdk.recipes.program import open_recipe

        derivation = self._derived[digest]
        recipe = self._store.read(derivation.recipe)
        base = self._store.mapped(derivation.base)
        build(open_recipe(recipe, len(base), len(target)), base, target)
        if bytes_digest(target) == digest:
            return
        self._store.verify(derivation.base)  # names the culprit when it is the base
        raise TrustError(
            "wrong-result",
            f"What recipe {derivation.recipe[:12]} makes of {derivation.base[:12]} is not"
            f" {digest[:12]}.",
            "Create the release again with `edge release create`.",
        )


@contextmanager
def _memory_file(name: str, size: int, descriptors: Path) -> Iterator[tuple[Path, memoryview]]:
    """A file that lives in memory and goes with its last user, and its writable content."""
    with ExitStack() as stack:
        try:
            if sys.platform == "linux" and descriptors.is_dir():
                handle = os.memfd_create(name[:12], os.MFD_CLOEXEC)
                path = descriptors / str(handle)
            else:
                import tempfile  # brings archives and random numbers along

                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / name
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            stack.callback(os.close, handle)
            os.ftruncate(handle, size)
            memory = memoryview(mmap.mmap(handle, size))
        except OSError as error:
            raise StorageError(
                "no-memory",
                f"No {size / 2**20:.1f} MiB of memory for {name[:12]}: {error.strerror or error}.",
                "Free memory on the device, or use a smaller model.",
            ) from error
        yield path, memory
