"""Making files from those of an earlier release and deltas, a little at a time.

What is made grows in the place where a download of the same file would, and takes the same last
step: it is read back, compared with its digest, and renamed. So it may be interrupted anywhere, and
a wrong base or a damaged delta costs a second way to the same file, never the file.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.update.ports import Clock
from agent.update.store import DeviceStore
from edge_sdk.bundle.needs import choose_deltas
from edge_sdk.contracts.manifest import BlobRef, Manifest
from edge_sdk.errors import EdgeError, StorageError

log = logging.getLogger(__name__)

BUDGET_S = 0.05
"""Work done in one call."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to make."""

    target: BlobRef
    delta: BlobRef
    base: str
    """Digest of the file it starts from."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a release gets here."""

    fetched: tuple[BlobRef, ...]
    """Blobs that are fetched, deltas among them."""
    jobs: tuple[Job, ...] = ()

    @property
    def saved_bytes(self) -> int:
        """What deltas save."""
        return sum(job.target.size_bytes - job.delta.size_bytes for job in self.jobs)

    @property
    def made(self) -> tuple[BlobRef, ...]:
        """Files that are made here."""
        return tuple(job.target for job in self.jobs)

    @property
    def deltas(self) -> tuple[str, ...]:
        """Digests of the deltas."""
        return tuple(job.delta.digest for job in self.jobs)


def choose_way(
    store: DeviceStore, manifest: Manifest, refs: Sequence[BlobRef], *, whole: bool = False
) -> Way:
    """The way with the fewest bytes, given what is on the flash.

    Args:
        store: where earlier releases lie.
        manifest: of the release.
        refs: blobs of it that the device needs.
        whole: no deltas but those whose file is made already.

    Raises:
        EdgeError: the disk fails.
    """
    jobs: dict[str, Job] = {}
    if manifest.deltas:
        open_bytes = {ref.digest: _open_bytes(store, manifest, ref, whole) for ref in refs}
        chosen = choose_deltas(manifest, open_bytes, lambda it: store.blobs.path(it).is_file())
        for digest, delta in chosen.items():
            job = Job(manifest.blobs[digest], manifest.blobs[delta.delta], delta.base)
            jobs[digest] = job
    fetched = (jobs[ref.digest].delta if ref.digest in jobs else ref for ref in refs)
    return Way(tuple(dict.fromkeys(fetched)), tuple(jobs.values()))


def _open_bytes(store: DeviceStore, manifest: Manifest, ref: BlobRef, whole: bool) -> int:
    """What a delta may cost; a file beside its delta was made before a restart."""
    missing = store.missing_bytes([ref])
    if missing:
        return 0 if whole else missing
    deltas = (manifest.blobs[each.delta] for each in manifest.deltas if each.target == ref.digest)
    return ref.size_bytes if any(store.blobs.has(delta) for delta in deltas) else 0


class Rebuilder:
    """Carries out jobs, for a moment in each call.

    Args:
        store: where files come from and go to.
        clock: time.
    """

    def __init__(self, store: DeviceStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._jobs: deque[Job] = deque()
        self._work: Iterator[None] | None = None

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin with these, instead of whatever was begun."""
        self._jobs, self._work = deque(jobs), None

    def tick(self) -> bool:
        """Go on for a moment; whether all is done.

        Raises:
            EdgeError: a file cannot be made.
        """
        until = self._clock.monotonic() + BUDGET_S
        while self._work is not None or self._jobs:
            if self._work is None:
                self._work = self._steps(self._jobs.popleft())
            for _ in self._work:
                if self._clock.monotonic() >= until:
                    return False
            self._work = None
        return True

    def _steps(self, job: Job) -> Iterator[None]:
        # Imported here because it needs numpy, which this process does without until then.
        from edge_sdk.delta.apply import apply_delta

        store = self._store
        if store.blobs.has(job.target):
            return
        delta = store.blobs.mapped(job.delta.digest)
        try:
            base = store.blobs.mapped(job.base)
            for piece in apply_delta(delta, base, job.target.size_bytes):
                if piece is not None:
                    store.put_piece(job.target, *piece)
                yield
            store.finish(job.target)
        except EdgeError:
            store.blobs.remove(job.delta.digest)
            raise
        except MemoryError as error:
            raise StorageError(
                "no-memory",
                f"Not enough memory to make {job.target.digest[:12]} from a delta.",
                "Free memory on the device; the file is fetched whole.",
            ) from error
        log.info("made %s from %s", job.target.digest[:12], job.base[:12])
