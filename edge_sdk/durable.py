"""Durable writes: a file is either the old one or the new one, whatever happens in between.

Every write that must survive a power cut goes through a :class:`Storage`, so that tests can cut
the power between any two steps. The order is write to a temporary name, fsync, rename, fsync the
folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from edge_sdk.errors import StorageError


class Storage(Protocol):
    """The durable operations the product uses; each method is one or more durable steps."""

    def write(self, path: Path, data: bytes) -> None:
        """Replace ``path`` by ``data`` atomically."""

    def remove(self, path: Path) -> None:
        """Delete ``path`` if it exists."""


class DiskStorage:
    """The real disk.

    Besides :class:`Storage` it offers :meth:`write_at` and :meth:`finish` for large files that
    arrive in pieces. Subclasses may override :meth:`step`, which is called before each durable
    step with its name (``write``, ``half``, ``piece``, ``sync``, ``rename``, ``done``,
    ``remove``), and :meth:`sync`: a power-cut test raises or kills in the one, and learns from the
    other what a cut would leave.
    """

    def step(self, name: str, path: Path) -> None:
        """Called before each durable step; does nothing on a real device."""

    def sync(self, handle: int) -> None:
        """Make an open file, or the names in an open folder, survive a power cut."""
        os.fsync(handle)

    def _sync_folder(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            self.sync(handle)
        finally:
            os.close(handle)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it; a name that is not synced may take all in it along."""
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        self._sync_folder(folder.parent)

    def write(self, path: Path, data: bytes, mode: int = 0o666) -> None:
        """Replace ``path`` by ``data`` atomically.

        Args:
            path: the file; its folder is made when missing.
            data: its whole content.
            mode: permissions, less the umask; 0o600 for a secret.

        Raises:
            StorageError: ``storage.disk-full`` or ``storage.write-failed``; ``path`` is unchanged
                and no temporary file is left.
        """
        temporary = path.with_name(path.name + ".tmp")
        try:
            self._make_folder(path.parent)
            self.step("write", path)
            temporary.unlink(missing_ok=True)  # one left by a power cut may have another mode
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, mode), "wb") as handle:
                half = len(data) // 2
                handle.write(data[:half])
                self.step("half", path)
                handle.write(data[half:])
                handle.flush()
                self.sync(handle.fileno())
            self.step("rename", path)
            temporary.replace(path)
            self.step("done", path)
            self._sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise storage_error(error, path) from error

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write a piece of a growing file, in place and not durably.

        For data that is verified by hash when it is read back, such as the chunks of a download:
        a power cut may lose any of them, and costs only their second transfer.

        Raises:
            StorageError: as :meth:`write`; what was written before stays.
        """
        try:
            self._make_folder(path.parent)
            self.step("piece", path)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                view = memoryview(data)
                while view:
                    written = os.pwrite(handle, view, offset)
                    view, offset = view[written:], offset + written
            finally:
                os.close(handle)
        except OSError as error:
            raise storage_error(error, path) from error

    def finish(self, part: Path, path: Path) -> None:
        """Make a file grown by :meth:`write_at` durable under its final name, atomically.

        Raises:
            StorageError: as :meth:`write`; ``part`` is still there.
        """
        try:
            self._make_folder(path.parent)
            self.step("sync", part)
            with part.open("rb+") as handle:
                self.sync(handle.fileno())
            self.step("rename", path)
            part.replace(path)
            self.step("done", path)
            self._sync_folder(path.parent)
        except OSError as error:
            raise storage_error(error, path) from error

    def remove(self, path: Path) -> None:
        """Delete ``path`` if it exists, and make the deletion durable."""
        try:
            self.step("remove", path)
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                self._sync_folder(path.parent)
        except OSError as error:
            raise storage_error(error, path) from error


def sync_folder(folder: Path) -> None:
    """Make a rename or a deletion inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def held_lock(path: Path, busy: StorageError) -> Iterator[None]:
    """Hold a lock file, made when missing; the kernel lets go of it when the process ends.

    Raises:
        StorageError: ``busy``, when another process holds it; or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError as error:
        raise storage_error(error, path) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise busy from error
        yield


def storage_error(error: OSError, path: Path) -> StorageError:
    """The user's view of a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            "disk-full",
            f"No space left while writing {path}.",
            "Free some space or choose another folder, then run the same command again.",
        )
    return StorageError(
        "write-failed",
        f"Cannot write {path}: {error.strerror or error}.",
        "Check that the folder exists and that this user may write there.",
    )
