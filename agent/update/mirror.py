"""Which bytes to fetch from an HTTP mirror, and when to stop relying on it.

Pure of I/O: a :class:`~agent.update.ports.Fetcher` does the requests. Missing chunks of a blob are
asked for in runs, as long as they are consecutive. Every chunk is held to its hash before it is
handed on, so a mirror can delay an update and nothing else, and not even that for long: a blob
that it refuses or has wrong, and everything once it fails several times in a row, goes back to be
fetched over MQTT, chunk by chunk from where the mirror got to.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.update.download import Piece, holds
from agent.update.limits import MirrorLimits
from agent.update.ports import Clock, Fetcher, RangeEnd, RangeJob, RangePiece
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.contracts.mirror import blob_url, check_mirror
from edge_sdk.errors import ConfigError

log = logging.getLogger(__name__)

BACKOFF_S = 1.0
"""Pause after the first failure; doubles with each further one."""

Wanted = tuple[BlobRef, list[int]]
"""A blob and the indexes of its missing chunks."""


@dataclass(slots=True)
class _Run:
    """Consecutive chunks of a blob; shrinks from its beginning."""

    ref: BlobRef
    first: int
    end: int

    @property
    def length(self) -> int:
        return min(self.end * CHUNK_BYTES, self.ref.size_bytes) - self.first * CHUNK_BYTES


class Mirror:
    """Fetches chunks of large blobs; what it gives up is to be fetched another way.

    Args:
        fetcher: does the requests; None where there is nobody to do them.
        clock: time.
        limits: sizes and waits.
    """

    def __init__(self, fetcher: Fetcher | None, clock: Clock, limits: MirrorLimits) -> None:
        self._fetcher, self._clock, self._limits = fetcher, clock, limits
        self._base = ""
        self._runs: deque[_Run] = deque()
        self._job = 0
        self._running = self._held = False
        self._failures = 0
        self._heard = self._not_before = 0.0
        self._returned: list[Wanted] = []
        self.note = ""
        """Why the mirror was given up, for a person."""
        self.bytes_received = 0
        """Everything that arrived, wanted or not."""
        self.retries = 0

    @property
    def done(self) -> bool:
        """Whether nothing is expected from here any more."""
        return not self._runs and not self._returned

    def remaining(self, digest: str) -> int:
        """Chunks of one blob that have not arrived."""
        runs = sum(run.end - run.first for run in self._runs if run.ref.digest == digest)
        return runs + sum(len(rest) for ref, rest in self._returned if ref.digest == digest)

    def start(self, base: str, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Begin to fetch what is worth it, instead of whatever was being fetched; the rest."""
        self.stop()
        if not base or self._fetcher is None or not self._limits.enabled:
            return list(wanted)
        try:
            self._base = check_mirror(base)
        except ConfigError as error:
            log.warning("The release's mirror is not used: %s", error.cause)
            return list(wanted)
        rest = []
        for ref, indexes in wanted:
            if ref.size_bytes >= self._limits.min_bytes:
                self._runs.extend(_runs(ref, indexes))
            else:
                rest.append((ref, indexes))
        if self._runs:
            log.info("large blobs come from the mirror %s", self._base)
        return rest

    def stop(self) -> None:
        """Want nothing any more."""
        if self._running and self._fetcher is not None:
            self._fetcher.cancel()
        self._running = False
        self._runs.clear()
        self._returned.clear()
        self._failures, self._not_before, self.note = 0, 0.0, ""

    def hold(self, held: bool) -> None:
        """Request nothing for now, or go on with what is missing."""
        if held and self._running and self._fetcher is not None:
            self._fetcher.cancel()
            self._running = False
        self._held = held

    def pieces(self) -> Iterator[Piece]:
        """What has come, each chunk verified; also keeps the requests going."""
        if self._fetcher is None:
            return
        for item in self._fetcher.poll():
            if isinstance(item, RangePiece):
                self.bytes_received += len(item.data)
            if not self._running or item.number != self._job:
                continue
            if isinstance(item, RangeEnd):
                self._ended(item)
            else:
                piece = self._take(item.data)
                if piece is not None:
                    yield piece
        self._go_on()

    def given_back(self) -> list[Wanted]:
        """What has to be fetched another way; each is told once."""
        back, self._returned = self._returned, []
        return back

    def _take(self, data: bytes) -> Piece | None:
        run = self._runs[0]
        if not holds(run.ref, run.first, data):
            self._drop_blob(f"chunk {run.first} has wrong bytes")
            return None
        piece = Piece(run.ref, run.first, data)
        self._heard, self._failures = self._clock.monotonic(), 0
        run.first += 1
        if run.first == run.end:
            self._runs.popleft()
            self._running = False
        return piece

    def _ended(self, end: RangeEnd) -> None:
        self._running = False
        if end.final:
            self._drop_blob(end.problem)
        else:
            self._failed(end.problem or "the answer is too short")

    def _go_on(self) -> None:
        """Notice silence, and begin the next run."""
        now = self._clock.monotonic()
        if self._running and now - self._heard > self._limits.timeout_s:
            self._cancel()
            self._failed(f"nothing came for {self._limits.timeout_s:.0f} s")
        waits = self._running or self._held or now < self._not_before
        if waits or not self._runs or self._fetcher is None:
            return
        run = self._runs[0]
        self._job += 1
        self._running, self._heard = True, now
        url = blob_url(self._base, run.ref.digest)
        self._fetcher.fetch(RangeJob(self._job, url, run.first * CHUNK_BYTES, run.length))

    def _failed(self, problem: str) -> None:
        """Something that may be over the next time."""
        self._failures += 1
        if self._failures >= self._limits.attempts:
            self._give_back(lambda _: True, f"{problem}, {self._failures} times in a row")
            return
        self.retries += 1
        self._not_before = self._clock.monotonic() + BACKOFF_S * 2 ** (self._failures - 1)
        log.info("mirror %s: %s; trying again", self._base, problem)

    def _drop_blob(self, problem: str) -> None:
        """Something that would be the same the next time."""
        self._cancel()
        digest = self._runs[0].ref.digest
        self._give_back(lambda run: run.ref.digest == digest, f"blob {digest[:12]}: {problem}")

    def _give_back(self, chosen: Callable[[_Run], bool], problem: str) -> None:
        self.note = f"{problem}; going on over MQTT"
        log.warning("mirror %s: %s", self._base, self.note)
        back = [run for run in self._runs if chosen(run)]
        self._runs = deque(run for run in self._runs if not chosen(run))
        self._returned += [(run.ref, list(range(run.first, run.end))) for run in back]

    def _cancel(self) -> None:
        if self._running and self._fetcher is not None:
            self._fetcher.cancel()
        self._running = False


def _runs(ref: BlobRef, indexes: Iterable[int]) -> Iterator[_Run]:
    """Ascending indexes as runs of consecutive ones."""
    run: _Run | None = None
    for index in indexes:
        if run is not None and run.end == index:
            run.end += 1
            continue
        if run is not None:
            yield run
        run = _Run(ref, index, index + 1)
    if run is not None:
        yield run
