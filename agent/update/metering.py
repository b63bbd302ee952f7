"""Counting what an update costs while it happens; the sums are :mod:`agent.update.costs`."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from agent.update.costs import Reading, charged
from agent.update.intake import Intake
from agent.update.ports import Clock
from agent.update.state import UpdateState
from agent.update.store import PieceStorage
from edge_sdk.contracts.update import RUNNING_PHASES

CHECKPOINT_S = 300.0
"""In a long phase the sums are written this often; more would wear the flash that they count."""


class MeteredStorage:
    """A storage that counts the bytes written through it."""

    def __init__(self, storage: PieceStorage) -> None:
        self._storage = storage
        self.written_bytes = 0

    def write(self, path: Path, data: bytes) -> None:
        """Replace ``path`` by ``data`` atomically."""
        self._storage.write(path, data)
        self.written_bytes += len(data)

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        """Write a piece in place, not durably."""
        self._storage.write_at(path, offset, data)
        self.written_bytes += len(data)

    def finish(self, part: Path, path: Path) -> None:
        """Make a part durable under its final name."""
        self._storage.finish(part, path)

    def remove(self, path: Path) -> None:
        """Delete ``path`` if it exists."""
        self._storage.remove(path)


class Meter:
    """Books what happens on the update under way.

    Args:
        clock: time.
        download: counts what comes.
        storage: counts what is written.
    """

    def __init__(self, clock: Clock, download: Intake, storage: MeteredStorage) -> None:
        self._clock, self._download, self._storage = clock, download, storage
        self._since = self._reading()
        self._saved_s = self._since.at_s

    def charge(self, state: UpdateState) -> UpdateState:
        """The state with what has happened since the last call."""
        since, self._since = self._since, self._reading()
        if state.phase not in RUNNING_PHASES:
            return state
        return replace(state, costs=charged(state.costs, state.phase, since, self._since))

    def saved(self) -> None:
        """The state has been, or could not be, written."""
        self._saved_s = self._clock.monotonic()

    def wants_saving(self, state: UpdateState) -> bool:
        """Whether a cut would lose many sums."""
        return (
            state.phase in RUNNING_PHASES
            and self._clock.monotonic() - self._saved_s >= CHECKPOINT_S
        )

    def _reading(self) -> Reading:
        download = self._download
        return Reading(
            self._clock.monotonic(),
            download.bytes_received,
            download.retries,
            self._storage.written_bytes,
        )
