"""The output folder appears whole or not at all, and an earlier good one is never lost.

Everything is built in a hidden sibling. Publishing renames the earlier folder aside, renames the
new one into place, then deletes the earlier one. A crash between the two renames leaves the
earlier folder under its aside name, and the next run puts it back.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.durable import storage_error, sync_folder
from edge_sdk.errors import ConversionError, StorageError

CONVERSION_NAME = "conversion.json"


class Publisher:
    """Owns the way from nothing to a finished folder.

    Subclasses may override :meth:`step`, which is called before each durable step (``aside``,
    ``place``, ``clean``); a power-cut test raises there.
    """

    def __init__(self, out: Path, *, force: bool = False) -> None:
        self.out = out.resolve() if out.name in ("", "..") else out
        self._force = force
        self._aside = self.out.parent / f".{self.out.name}.previous"

    def step(self, name: str) -> None:
        """Called before each durable step; does nothing outside tests."""

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A folder that becomes ``out`` when the block ends well and vanishes otherwise.

        Raises:
            ConversionError: ``conversion.output-occupied``, ``conversion.output-busy``.
            StorageError: the parent folder cannot be written.
        """
        building = self.out.parent / f".{self.out.name}.building-{os.getpid()}"
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._recover()
            self.check()
            building.mkdir()
        except OSError as error:
            raise storage_error(error, self.out) from error
        try:
            self._check_alone()  # again: another may have begun since
            yield building
            self._publish(building)
        except OSError as error:
            raise _explained(error, self.out) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _recover(self) -> None:
        """Undo what a killed run left: its half-built folder, or the earlier one put aside."""
        if self._aside.exists():
            if self.out.exists():
                shutil.rmtree(self._aside)
            else:
                self._aside.rename(self.out)
        self._check_alone()
        for leftover in self._half_built():
            shutil.rmtree(leftover, ignore_errors=True)

    def _check_alone(self) -> None:
        for folder in self._half_built():
            owner = folder.name.rpartition("-")[2]
            if owner.isdecimal() and int(owner) != os.getpid() and _is_alive(int(owner)):
                raise ConversionError(
                    "output-busy",
                    f"Process {owner} is converting into {self.out} right now.",
                    "Wait for it, or choose another folder with -o.",
                )

    def _half_built(self) -> list[Path]:
        return list(self.out.parent.glob(f".{glob.escape(self.out.name)}.building-*"))

    def check(self) -> None:
        """Refuse to replace what is not an earlier conversion, or what this process stands in.

        Raises:
            ConversionError: ``conversion.output-occupied``.
        """
        if self.out in (Path.cwd(), *Path.cwd().parents):
            raise ConversionError(
                "output-occupied",
                f"{self.out} holds the folder that this command runs in.",
                "Choose another folder with -o.",
            )
        if not self.out.exists() or self._force:
            return
        empty = self.out.is_dir() and not any(self.out.iterdir())
        if not empty and not (self.out / CONVERSION_NAME).is_file():
            raise ConversionError(
                "output-occupied",
                f"{self.out} exists and is not an earlier conversion.",
                "Choose another folder with -o, or add --force to replace it.",
            )

    def _publish(self, building: Path) -> None:
        sync_folder(building)
        replaced = self.out.exists()
        if replaced:
            self.step("aside")
            self.out.rename(self._aside)
        try:
            self.step("place")
            building.rename(self.out)
        except BaseException:
            if replaced:
                self._aside.rename(self.out)
            raise
        sync_folder(self.out.parent)
        self.step("clean")
        if self._aside.is_dir() and not self._aside.is_symlink():
            shutil.rmtree(self._aside, ignore_errors=True)
        else:
            self._aside.unlink(missing_ok=True)


def _explained(error: OSError, out: Path) -> StorageError:
    """A failed write, of the conversion or of what is kept meanwhile in the temporary folder."""
    if error.errno is None:  # numpy says only that it wrote less than it wanted
        error = OSError(errno.ENOSPC, str(error), tempfile.gettempdir())
    return storage_error(error, Path(error.filename) if error.filename else out)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
