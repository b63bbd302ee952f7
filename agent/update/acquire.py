"""Getting a release onto the device: manifest, preflight, blobs, verification."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from agent.update.authority import Authority
from agent.update.costs import Plan
from agent.update.download import Piece
from agent.update.events import (
    Downloaded,
    Event,
    ManifestVerified,
    PreflightPassed,
    RebuildFailed,
    Rebuilt,
    Refused,
    SpaceShort,
    Verified,
    VerifyFailed,
)
from agent.update.holding import Holding
from agent.update.intake import Intake
from agent.update.limits import UpdateLimits
from agent.update.outcomes import stalled
from agent.update.ports import Clock
from agent.update.preflight import Look, Preflight
from agent.update.rebuild import Rebuilder, Way, choose_way
from agent.update.state import ReleaseRecord
from agent.update.store import DeviceStore
from agent.update.trust import Device, Fitting, accept_manifest, record_of
from edge_sdk.bundle.needs import whole_bytes
from edge_sdk.contracts.manifest import BlobRef
from edge_sdk.contracts.update import Desired
from edge_sdk.errors import ConfigError, EdgeError, TrustError

Emit = Callable[[Event], None]

log = logging.getLogger(__name__)


class Acquisition:
    """Carries out the fetching effects; one at a time.

    Args:
        store: where bytes go.
        download: how they come.
        preflight: whether to begin.
        authority: whose signatures count, and which releases exist.
        device: what fits.
        clock: time.
        limits: waits and thresholds.
        holding: when downloads must wait.
        emit: receives the events.
        progress: told, in words, what is being waited for, and every second while downloading.
    """

    def __init__(
        self,
        *,
        store: DeviceStore,
        download: Intake,
        preflight: Preflight,
        authority: Authority,
        device: Device,
        clock: Clock,
        limits: UpdateLimits,
        holding: Holding,
        emit: Emit,
        progress: Callable[[str], None],
    ) -> None:
        self._store, self._download, self._preflight = store, download, preflight
        self._authority, self._device = authority, device
        self._clock, self._limits, self._holding = clock, limits, holding
        self._emit, self._progress = emit, progress
        self._fetched: Callable[[], None] | None = None
        self._fitting: Fitting | None = None
        self._waiting = self._whole = self._rebuilding = False
        self._way = Way(())
        self._rebuilder = Rebuilder(store, clock)
        self._unverified: deque[str] | None = None
        self._envelope_bytes = 0
        self._told = 0.0
        self._unjudged: Desired | None = None
        self._since = 0.0

    def fetch_manifest(self, desired: Desired) -> None:
        """Fetch and open the desired manifest, once the publisher's newest metadata names it.

        Ends in ManifestVerified or Refused.
        """
        try:
            self._holding.heed(desired.windows)
        except ConfigError as error:  # a newer server may write windows that are unknown here
            self._refuse(error)
            return
        self._download.limit(desired.max_bytes_per_s)
        self._envelope_bytes = desired.manifest.size_bytes
        self._unjudged, self._since = desired, self._clock.monotonic()
        self._tick_judge()

    def check_preflight(self, *, whole: bool = False) -> None:
        """Wait for a good moment; ends in PreflightPassed, SpaceShort or Refused.

        Args:
            whole: use no deltas.
        """
        self._preflight.begin()
        self._waiting, self._whole = True, whole
        self._tick_preflight()

    def fetch_blobs(self, *, whole: bool = False) -> None:
        """Fetch what is missing of the opened manifest; ends in Downloaded or Refused.

        Args:
            whole: no deltas, whatever was planned.
        """
        if self._fitting is not None:
            mirror = self._fitting.manifest.mirror
            refs = self._fitting.refs if whole else self._way.fetched
            self._fetch(refs, lambda: self._emit(Downloaded()), mirror)

    def rebuild(self) -> None:
        """Make files from the deltas that were fetched; ends in Rebuilt or RebuildFailed."""
        self._rebuilder.start(self._way.jobs)
        self._rebuilding = True

    def verify(self, candidate: ReleaseRecord) -> None:
        """Read every blob back, one per tick; ends in Verified or VerifyFailed."""
        self._unverified = deque(candidate.blobs)

    def abandon(self) -> None:
        """Stop whatever is going on."""
        self._download.stop()
        self._fetched = self._fitting = self._unverified = self._unjudged = None
        self._waiting = self._rebuilding = False
        self._rebuilder.start(())

    def on_chunk(self, topic: str, payload: bytes) -> None:
        """A message on a chunk topic."""
        try:
            for piece in self._download.on_chunk(topic, payload):
                self._keep(piece)
        except EdgeError as error:
            self._refuse(error)

    def tick(self) -> None:
        """Timers."""
        self._tick_judge()
        self._download.hold(bool(self._held))
        self._tick_intake()
        self._tick_download()
        self._tick_preflight()
        self._tick_rebuild()
        self._tick_verify()

    @property
    def _held(self) -> str:
        """Why the release's files wait; its manifest is read at any time."""
        return self._holding.reason() if self._fitting is not None else ""

    def _tick_judge(self) -> None:
        """Begin the fetching once the wish is admitted; nothing is asked for before."""
        desired = self._unjudged
        if desired is None:
            return
        try:
            admitted = self._authority.admits(desired)
        except TrustError as error:
            self._unjudged = None
            self._refuse(error)
            return
        why = self._authority.waits_for
        if admitted:
            self._unjudged = None
            self._fetch([desired.manifest], lambda: self._open_manifest(desired))
        elif why is not None:
            if self._clock.monotonic() - self._since > self._limits.download_patience_s:
                self._unjudged = None
                self._refuse(why)
            else:
                self._progress(f"Waiting for metadata: {why.cause}")

    def _tick_intake(self) -> None:
        try:
            for piece in self._download.tick():
                self._keep(piece)
        except EdgeError as error:
            self._refuse(error)

    def _fetch(self, refs: Sequence[BlobRef], then: Callable[[], None], mirror: str = "") -> None:
        """Ask for what is missing of ``refs``; what is complete goes on at once."""
        try:
            wanted = [(ref, self._store.missing_chunks(ref)) for ref in refs]
        except EdgeError as error:
            self._refuse(error)
            return
        self._fetched = then
        self._download.start([(ref, missing) for ref, missing in wanted if missing], mirror)
        self._finish_if_done()

    def _keep(self, piece: Piece) -> None:
        self._store.put_chunk(piece.ref, piece.index, piece.data)
        if self._download.remaining(piece.ref.digest) == 0:
            self._store.finish(piece.ref)
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._download.done and self._fetched is not None:
            then, self._fetched = self._fetched, None
            then()

    def _open_manifest(self, desired: Desired) -> None:
        try:
            envelope = self._store.blobs.read(desired.manifest.digest)
            vouched = self._authority.required
            fitting = accept_manifest(
                envelope, self._authority.keys, desired, self._device, vouched=vouched
            )
            self._store.place_manifest(desired.manifest.digest)
        except EdgeError as error:
            self._refuse(error)
            return
        self._fitting = fitting
        self._emit(ManifestVerified(record_of(fitting, desired.manifest.digest)))

    def _tick_preflight(self) -> None:
        if not self._waiting or self._fitting is None or not self._preflight.due():
            return
        if self._held:
            self._progress(self._held)
            self._preflight.begin()
            return
        try:
            found, way, plan = self._look(self._fitting)
        except EdgeError as error:
            self._refuse(error)
            return
        if isinstance(found, str):
            self._progress(found)
            return
        if isinstance(found, PreflightPassed):
            self._way, found = way, PreflightPassed(plan, way.deltas)
        self._waiting = False
        self._emit(found)

    def _look(self, fitting: Fitting) -> tuple[Look, Way, Plan]:
        """With deltas, or without them where there is no room for a delta beside its file."""
        for whole in (self._whole, True):
            way = choose_way(self._store, fitting.manifest, fitting.refs, whole=whole)
            plan = self._plan(fitting, way)
            found = self._preflight.look(plan.missing_bytes + self._store.missing_bytes(way.made))
            if not isinstance(found, SpaceShort):
                break
        return found, way, plan

    def _plan(self, fitting: Fitting, way: Way) -> Plan:
        whole = whole_bytes(fitting.manifest, fitting.points)
        return Plan(
            offered_bytes=self._envelope_bytes + whole,
            total_bytes=self._envelope_bytes + sum(ref.size_bytes for ref in way.fetched),
            missing_bytes=self._store.missing_bytes(way.fetched),
            saved_delta_bytes=way.saved_bytes,
        )

    def _tick_rebuild(self) -> None:
        if not self._rebuilding:
            return
        try:
            done = self._rebuilder.tick()
        except EdgeError as error:
            self._rebuilding = False
            self._rebuild_failed(error)
            return
        if done:
            self._rebuilding = False
            self._emit(Rebuilt())

    def _rebuild_failed(self, error: EdgeError) -> None:
        log.warning("A delta is of no use here: %s", error)
        if self._fitting is None:
            return
        try:
            fitting = self._fitting
            way = choose_way(self._store, fitting.manifest, fitting.refs, whole=True)
            plan = self._plan(fitting, way)
        except EdgeError as failure:
            self._refuse(failure)
            return
        self._emit(RebuildFailed(f"Fetching whole: {error.cause}", plan))

    def _tick_download(self) -> None:
        if self._download.done:
            return
        stalled_s = self._download.stalled_s
        if stalled_s > self._limits.download_patience_s:
            detail = f"No chunk has come for {stalled_s:.0f} s."
            self._emit(Refused(stalled(detail)))
            return
        now = self._clock.monotonic()
        if now - self._told >= self._limits.progress_interval_s:
            self._told = now
            self._progress(self._held or self._download.note)

    def _tick_verify(self) -> None:
        """One blob per tick, so that a large release does not hold up the owner."""
        if self._unverified is None:
            return
        if not self._unverified:
            self._unverified = None
            self._emit(Verified())
            return
        digest = self._unverified.popleft()
        if not self._store.check_blob(digest):
            self._unverified = None
            self._emit(VerifyFailed(f"Blob {digest[:12]} read back wrong."))

    def _refuse(self, error: EdgeError) -> None:
        self._waiting = False
        self._emit(Refused(error))
