"""A disk that knows at every durable step what a crash would leave of it.

Files are real, but are never synced: the disk notes what was, and works out the rest. So one
undisturbed run gives the remains of a crash at each of its steps, and only the recoveries have to
be run one by one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edge_sdk.durable import DiskStorage

Image: TypeAlias = dict[str, bytes | None]
"""Content by path below the folder; None for a folder."""

KILLED = "kill"
"""The process dies: whatever reached the kernel is there."""
LOST = "power, names lost"
"""The power fails: names that were not synced, new, renamed or gone, are as they were before."""
TORN = "power, bytes lost"
"""The power fails, and names had reached the disk: bytes that were not synced are lost."""
ROTTEN = "kill, newest state rotten"
"""The process dies, and the card loses the sector of the newest state."""
FATES = (KILLED, LOST, TORN, ROTTEN)

NEWEST = "state.json"


class DiskGone(BaseException):
    """The run ends here; not an ``Exception``, so that no handler can carry on."""


@dataclass(frozen=True)
class Moment:
    """A durable step, and what a crash right before it leaves."""

    step: str
    remains: dict[str, Image]
    """By fate."""


class CrashDisk(DiskStorage):
    """Records the moments of a run.

    Args:
        folder: whose content is at stake; what is there now is durable.
        cut_at: record this step alone and raise :class:`DiskGone`; 0 records all.
        forgets_to_sync: ignore every sync, as a defective product would.
    """

    def __init__(self, folder: Path, *, cut_at: int = 0, forgets_to_sync: bool = False) -> None:
        self._folder, self._cut_at = folder, cut_at
        self._forgets = forgets_to_sync
        self.moments: list[Moment] = []
        self._steps = 0
        self._content: dict[int, bytes] = {}
        """Synced bytes by inode."""
        self._names: dict[int, dict[str, int]] = {}
        """Synced names, and the inodes behind them, by the inode of their folder."""
        self._held: list[int] = []
        """Open files: the number of one that is open is not given to another."""
        for path in (folder, *sorted(folder.rglob("*"))):
            self._note(os.open(path, os.O_RDONLY))

    def step(self, name: str, path: Path) -> None:
        """Record what a crash now would leave."""
        self._steps += 1
        if self._steps < self._cut_at:
            return
        as_is = read_image(self._folder)
        torn = {key: data and self._torn(self._folder / key, data) for key, data in as_is.items()}
        lost = dict(self._durable(self._folder.stat().st_ino, ""))
        rotten = as_is | ({NEWEST: b"\0" * 64} if NEWEST in as_is else {})
        remains = {KILLED: as_is, LOST: lost, TORN: torn, ROTTEN: rotten}
        self.moments.append(Moment(f"{name} {path.parent.name}/{path.name[:12]}", remains))
        if self._steps == self._cut_at:
            raise DiskGone

    def sync(self, handle: int) -> None:
        """Note that it is durable as it is now."""
        if not self._forgets:
            self._note(os.dup(handle))

    def close(self) -> None:
        """Let go of every file."""
        while self._held:
            os.close(self._held.pop())

    def _note(self, handle: int) -> None:
        self._held.append(handle)
        number, path = os.fstat(handle).st_ino, Path(f"/proc/self/fd/{handle}")
        if path.is_dir():
            entries = list(os.scandir(path))
            self._names[number] = {entry.name: entry.inode() for entry in entries}
            for entry in entries:
                if entry.is_dir():  # its name is durable, what is in it not yet
                    self._names.setdefault(entry.inode(), {})
        else:
            self._content[number] = path.read_bytes()

    def _torn(self, path: Path, data: bytes) -> bytes:
        if self._content.get(path.stat().st_ino) == data:
            return data
        kept = len(data) // 3
        return data[:kept] + bytes(len(data) - kept)

    def _durable(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        for name, number in self._names.get(folder, {}).items():
            if number in self._names:
                yield f"{prefix}{name}", None
                yield from self._durable(number, f"{prefix}{name}/")
            else:
                yield f"{prefix}{name}", self._content.get(number, b"")


def read_image(folder: Path) -> Image:
    """A folder as it is."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def write_image(image: Image, folder: Path) -> Path:
    """A folder made anew from an image."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in sorted(image.items()):
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
    return folder
