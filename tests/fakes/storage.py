"""Disks that fail on purpose, at an exact durable step."""

from __future__ import annotations

import errno
from pathlib import Path

from edge_sdk.durable import DiskStorage


class PowerCut(BaseException):
    """The power is gone; not an ``Exception``, so that no handler can carry on."""


class SwiftStorage(DiskStorage):
    """A disk that no test pulls the plug of: nothing waits for the platter."""

    def sync(self, handle: int) -> None:
        """Nothing."""


class FaultyStorage(SwiftStorage):
    """A disk with a fault at the n-th durable step.

    Args:
        cut_at: raise :class:`PowerCut` before this step (1 is the first); 0 for never.
        full_at: the disk is full at this step; 0 for never.
        stays_full: and at every later step, but for deletions, until :attr:`full_at` is cleared.
        forgetful: at the cut, lose what was not synced: pieces of unfinished parts vanish, and a
            rename whose folder was not synced is undone.
    """

    def __init__(
        self,
        cut_at: int = 0,
        *,
        full_at: int = 0,
        stays_full: bool = False,
        forgetful: bool = False,
    ) -> None:
        self.cut_at, self.full_at = cut_at, full_at
        self.stays_full, self.forgetful = stays_full, forgetful
        self.steps = 0
        self.trace: list[str] = []
        self._unsynced: set[Path] = set()
        self._before: bytes | None = None

    def step(self, name: str, path: Path) -> None:
        """Count, and fail when it is time."""
        self.steps += 1
        self.trace.append(f"{name} {path.parent.name}/{path.name[:12]}")
        if self.steps == self.cut_at:
            self._lose(name, path)
            raise PowerCut(self.trace[-1])
        full = self.steps >= self.full_at if self.stays_full else self.steps == self.full_at
        if self.full_at and full and name != "remove":
            raise OSError(errno.ENOSPC, "No space left on device")
        if name == "rename":
            self._before = path.read_bytes() if path.is_file() else None
        if name == "piece":
            self._unsynced.add(path)

    def finish(self, part: Path, path: Path) -> None:
        """As on a real disk; afterwards the part cannot be lost any more."""
        super().finish(part, path)
        self._unsynced.discard(part)

    def _lose(self, name: str, path: Path) -> None:
        if not self.forgetful:
            return
        for part in self._unsynced:
            if part.is_file():
                kept = part.read_bytes()
                part.write_bytes(kept[: len(kept) // 3] + bytes(len(kept) - len(kept) // 3))
        if name == "done":
            if self._before is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(self._before)
