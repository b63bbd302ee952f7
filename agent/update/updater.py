"""The updater: carries out what the state machine asks for, and tells it what came of it.

Single-threaded and non-blocking: the owner calls in (:mod:`agent.update.ports` lists the calls)
and every call returns after at most one blob has been read or written; only :meth:`Updater.start`
reads all that is about to serve. The state is on disk before any of its consequences, so the power
may go at any moment; the next start picks up from whatever the disk says.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.update import events as ev
from agent.update import outcomes
from agent.update.acquire import Acquisition
from agent.update.asking import Asking
from agent.update.authority import Authority
from agent.update.download import Downloader
from agent.update.holding import Holding
from agent.update.intake import Intake
from agent.update.limits import MirrorLimits, UpdateLimits
from agent.update.machine import step
from agent.update.metering import Meter, MeteredStorage
from agent.update.mirror import Mirror
from agent.update.ports import (
    Clock,
    Host,
    Link,
    PlacedRelease,
    Report,
    ServiceStats,
    UpdateSensors,
)
from agent.update.preflight import Preflight
from agent.update.proving import Proving
from agent.update.riding import Riding
from agent.update.salvage import salvage
from agent.update.state import ReleaseRecord, UpdateState
from agent.update.store import DeviceStore, PieceStorage
from agent.update.telling import Teller
from agent.update.trust import Device, accept_desired, check_hardware
from agent.update.trust_store import TrustStore
from edge_sdk.bundle.tuf_metadata import RoleName
from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TrustRoot
from edge_sdk.contracts.update import Phase, UpdateStatus
from edge_sdk.delivery.choice import Choice
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import EdgeError, StorageError

log = logging.getLogger(__name__)

RETREATS = (
    ev.Refused,
    ev.TrialFailed,
    ev.GoldenFailed,
    ev.ServiceUnhealthy,
    ev.ServiceDegraded,
    ev.ServiceMeasured,
    ev.DesiredWithdrawn,
)
"""Events whose consequences are safe before they are on disk: all lead back to what serves."""


class Updater:
    """Brings a device to its desired release and keeps a working one in service.

    Args:
        device: who this is and what it can run.
        topics: the tenant's topic layout.
        state_dir: the updater's files live here.
        trust: whose signatures count.
        link: the broker.
        host: the owner of the workers.
        sensors: disk, battery and headroom.
        clock: time.
        report: told about every step.
        storage: how files are written; the real disk by default.
        limits: waits, sizes and thresholds.
        mirror: fetches large blobs by HTTP; none by default.
        objective_ms: the pipeline's latency objective; 0 for none.
        greeted: called when the server has just connected to the broker, with its report.
    """

    def __init__(
        self,
        *,
        device: Device,
        topics: Topics,
        state_dir: Path,
        trust: TrustRoot,
        link: Link,
        host: Host,
        sensors: UpdateSensors,
        clock: Clock,
        report: Report,
        storage: PieceStorage | None = None,
        limits: UpdateLimits | None = None,
        mirror: Mirror | None = None,
        objective_ms: float = 0.0,
        greeted: Callable[[BrokerReport], None] = lambda _: None,
    ) -> None:
        limits = limits or UpdateLimits()
        self._device, self._tenant = device, topics.tenant
        storage = MeteredStorage(storage or DiskStorage())
        self._store = DeviceStore(state_dir, storage)
        self._desired_topic = topics.desired(device.device_id)
        self._asking = Asking(link, topics, device.device_id, clock, greeted)
        self._authority = Authority(
            trust=trust,
            store=TrustStore(state_dir, storage),
            link=self._asking,
            topics=topics,
            device=device,
            clock=clock,
            notice=lambda code, detail: self._teller.notice(code, detail),
            rekeyed=lambda: self._asking.subscribe(self._desired_topic, qos=1),
        )
        riding = Riding(link, topics, device.device_id, clock)
        self._download = Intake(
            Downloader(self._asking, riding, topics, clock, limits),
            mirror or Mirror(None, clock, MirrorLimits()),
        )
        self.holding = Holding(limits.windows, lambda: self._authority.time.now())
        self._acquisition = Acquisition(
            store=self._store,
            download=self._download,
            preflight=Preflight(sensors, clock, limits),
            authority=self._authority,
            device=device,
            clock=clock,
            limits=limits,
            holding=self.holding,
            emit=self._dispatch,
            progress=self._report_progress,
        )
        self._meter = Meter(clock, self._download, storage)
        self._teller = Teller(device.device_id, clock, report)
        self._proving = Proving(host, sensors, clock, limits, self._dispatch, objective_ms)
        self._state = UpdateState()
        self._unsaved = False
        self._events: deque[ev.Event] = deque()
        self._dispatching = False

    @property
    def state(self) -> UpdateState:
        """Where the device stands."""
        return self._state

    @property
    def active(self) -> PlacedRelease | None:
        """The committed release."""
        serving = self._state.serving
        return self._store.placed(serving) if serving is not None else None

    @property
    def trusted_versions(self) -> Mapping[RoleName, int]:
        """Versions of the TUF metadata believed here; empty without TUF."""
        return self._authority.versions

    @property
    def delivery(self) -> Choice:
        """Which way chunks take, and why."""
        return self._asking.choice

    @property
    def status(self) -> UpdateStatus | None:
        """The last status reported."""
        return self._teller.last

    def start(self) -> None:
        """Read the state, check the files of every release in it, and go on from there.

        Raises:
            ContractError: ``contract.too-new``: a newer agent wrote the state.
            StorageError: the state directory cannot be used at all.
        """
        self._authority.start()
        self._state = self._load()
        records = [*self._state.slots.values()]
        if self._state.candidate is not None:
            records.append(self._state.candidate)
        intact = {record.digest for record in records if self._store.intact(record)}
        self._dispatch(ev.Booted(frozenset(intact)))

    def on_connected(self) -> None:
        """The broker accepted us: ask for everything wanted again, and repeat the last status."""
        self._asking.on_connected()
        self._asking.subscribe(self._desired_topic, qos=1)
        self._authority.on_connected()
        self._download.on_connected()
        self._teller.on_connected()

    def on_disconnected(self) -> None:
        """The broker is gone."""
        self._asking.on_disconnected()
        self._teller.on_disconnected()
        self._authority.on_disconnected()
        self._download.on_disconnected()

    def on_desired(self, payload: bytes) -> None:
        """A message on this device's desired topic; an empty one withdraws the wish."""
        if not payload:
            self._dispatch(ev.DesiredWithdrawn())
            return
        try:
            desired = accept_desired(payload, self._authority.keys, self._device.device_id)
            check_hardware(desired, self._device)
        except EdgeError as error:
            self._teller.notice(error.code, error.cause)
            return
        self._authority.saw(desired)
        self._dispatch(ev.DesiredReceived(desired))
        if self._state.desired == desired:
            self._tidy(lambda: self._store.save_desired(payload))

    def on_message(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """A message on any topic that was subscribed to here.

        Args:
            retained: the broker had kept it.
        """
        message = self._asking.on_message(topic, payload, retained)
        if message is None:
            return
        if message[0] == self._desired_topic:
            self.on_desired(message[1])
        elif not self._authority.on_message(*message):
            self._acquisition.on_chunk(*message)

    def on_ready(self, token: str) -> None:
        """The worker of ``token`` serves."""
        self._proving.on_ready(token)

    def on_golden(self, token: str, ok: bool, detail: str = "") -> None:
        """The golden test of ``token`` ended."""
        self._proving.on_golden(token, ok, detail)

    def on_stats(self, token: str, stats: ServiceStats) -> None:
        """Counts of the worker of ``token`` since its last report."""
        self._proving.on_stats(token, stats)

    def on_worker_crash(self, token: str, detail: str) -> None:
        """The worker of ``token`` died or hung; the owner decides outside a trial."""
        self._proving.on_worker_crash(token, detail)

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        """The committed release's restart budget is spent."""
        if self._proving.serves(token):
            self._dispatch(ev.ServiceUnhealthy(detail))

    def tick(self) -> None:
        """Timers, overdue chunks, one blob of verification. Call several times a second."""
        if self._unsaved or self._meter.wants_saving(self._state):
            self._state = self._meter.charge(self._state)
            self._save(self._state)
        self._authority.tick()
        self._acquisition.tick()
        self._proving.tick()
        self._asking.tick()

    def _load(self) -> UpdateState:
        """The state on disk as this device's own; put together from the files when it is lost."""
        found = self._store.load_state()
        state = found or salvage(self._store, self._authority, self._device)
        own = state.belonging_to(self._device.device_id, self._tenant)
        if found is None:
            log.error("The update state is lost; serving %s.", _name(own.serving))
        elif found.device_id and own.device_id != found.device_id:
            log.warning("The state was written by %s; its history is dropped.", found.device_id)
        if not self._store.state_is_current or found is None:
            self._unsaved = not self._save(own)
        return own

    def _dispatch(self, event: ev.Event) -> None:
        """Step the machine, persist, act; events that the actions cause follow in order."""
        self._events.append(event)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._dispatching = False

    def _step(self, event: ev.Event) -> None:
        if isinstance(event, ev.GoldenPassed):
            self._measure()
        self._state = self._meter.charge(self._state)
        state, effects = step(self._state, event)
        if state != self._state and not self._save(state):
            if not isinstance(event, RETREATS):
                self._cannot_save(event)
                return
            self._unsaved = True
        self._state = state
        for effect in effects:
            self._act(effect)

    def _measure(self) -> None:
        """Put what the committed release has shown into the state: the bar for the trial."""
        serving = self._state.serving
        measured = self._proving.measured(serving.service) if serving is not None else None
        if measured is not None:
            self._step(ev.ServiceMeasured(measured))

    def _save(self, state: UpdateState) -> bool:
        self._meter.saved()
        try:
            self._store.save_state(state)
        except StorageError as error:
            log.error("The update state cannot be saved: %s", error)
            return False
        self._unsaved = False
        return True

    def _cannot_save(self, event: ev.Event) -> None:
        """No room even for the state: give the update up, since its files fill the disk."""
        why = outcomes.disk_full("The update's state could not be written.")
        match event:
            case ev.DesiredReceived():
                tell = ev.Tell(event.desired, Phase.REJECTED, why.code, why.cause)
                self._teller.tell(tell, self._state.desired)
            case ev.Booted():
                self._boot_unsaved(event)
            case _:
                self._events.appendleft(ev.Refused(why))

    def _boot_unsaved(self, event: ev.Booted) -> None:
        """Serve what is committed, and start no candidate whose start cannot be counted."""
        candidate = self._state.candidate
        without = event.intact - {candidate.digest} if candidate is not None else event.intact
        self._state, effects = step(self._state, ev.Booted(without))
        self._unsaved = True
        for effect in effects:
            self._act(effect)

    def _act(self, effect: ev.Effect) -> None:
        state = self._state
        match effect:
            case ev.Tell():
                self._teller.tell(effect, state.desired)
            case ev.Notice():
                self._teller.notice(effect.code, effect.detail)
            case ev.Alert():
                self._teller.notice(effect.code, effect.detail, "alert")
            case ev.FetchManifest() if state.desired is not None:
                self._acquisition.fetch_manifest(state.desired)
            case ev.CheckPreflight():
                self._acquisition.check_preflight(whole=effect.whole)
            case ev.FetchBlobs():
                self._acquisition.fetch_blobs(whole=effect.whole)
            case ev.Rebuild():
                self._acquisition.rebuild()
            case ev.VerifyBlobs() if state.candidate is not None:
                self._acquisition.verify(state.candidate)
            case ev.RunGolden() if state.candidate is not None:
                self._proving.run_golden(self._store.placed(state.candidate))
            case ev.RunTrial() if state.candidate is not None and state.desired is not None:
                placed, policy = self._store.placed(state.candidate), state.desired.trial
                self._proving.run_trial(placed, state.candidate, state.serving, policy)
            case ev.Commit() if state.serving is not None:
                self._proving.commit(self._store.placed(state.serving), state.serving)
                self._tidy(self._store.settle_state)
            case ev.Serve():
                self._proving.serve(self.active, state.serving)
            case ev.Abandon():
                self._acquisition.abandon()
                self._proving.cancel_golden()
            case ev.CollectGarbage():
                self._collect_garbage()

    def _collect_garbage(self) -> None:
        """Delete what is not referred to; while a manifest is awaited, everything might be."""
        if self._state.phase is Phase.OFFERED or self._state.salvaged:
            return
        keep_parts = self._state.phase in (Phase.PREFLIGHT, Phase.DOWNLOADING, Phase.RECONSTRUCTING)
        self._tidy(lambda: self._store.collect_garbage(self._state.referenced(), keep_parts))

    def _tidy(self, work: Callable[[], None]) -> None:
        """Do what is better done, and does no harm undone."""
        try:
            work()
        except StorageError as error:
            log.warning("The disk could not be tidied: %s", error)

    def _report_progress(self, detail: str) -> None:
        state = self._state = self._meter.charge(self._state)
        if state.desired is not None:
            self._teller.progress(state.desired, state.phase, detail, state.costs)


def _name(record: ReleaseRecord | None) -> str:
    return "nothing" if record is None else f"{record.release} {record.version}, found on the disk"
