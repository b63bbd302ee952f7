"""The agent's main loop: one thread that joins link, updates, service, governor and reports.

Nothing here decides; it carries messages between the parts that do.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from agent.adapt.gate import MemoryRule
from agent.adapt.governor import Rung, rungs
from agent.adapt.steering import Steering
from agent.adapt.workload import OwnUse, with_workload
from agent.config import AgentConfig
from agent.link.mqtt import Connected, Disconnected, Incoming, Message, MqttLink
from agent.meter import Interval
from agent.notify import Notifier
from agent.sense.sample import PressureSample
from agent.service import ModelService
from agent.status import Request, StatusSocket, responded
from agent.update.ports import Clock, PlacedRelease, ServiceStats
from agent.update.trust import Device, usable_points
from agent.update.updater import Updater
from agent.worker.protocol import PointChanged, PointRefused, Ready, Results, Stats
from edge_sdk import __version__
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.contracts.telemetry import ResultBatch, TelemetrySample
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import DeviceState, Phase, UpdateStatus

LOG = logging.getLogger(__name__)

TICK_S = 0.1
SENSE_S = 0.5
STATE_S = 1.0


class Supervisor:
    """Joins the parts; build it with :func:`agent.run.build`.

    Args:
        config: the agent's configuration.
        device: its profile and the runtimes that work here.
        clock: time.
        link: the broker.
        sense: reads pressure; called about twice a second.
        steering: where the serving release stands on its ladder.
        own_cpu_percent: share of the machine that the given processes took since the last call.
        process_rss_mib: resident memory of a process id, 0.0 when it is gone.
        notifier: the service manager, if one started us.
        status: answers ``edge-agent status``.
    """

    def __init__(
        self,
        config: AgentConfig,
        device: Device,
        clock: Clock,
        link: MqttLink,
        sense: Callable[[], PressureSample],
        steering: Steering,
        own_cpu_percent: Callable[[Iterable[int]], float | None],
        process_rss_mib: Callable[[int | None], float],
        notifier: Notifier,
        status: StatusSocket,
    ) -> None:
        self._config = config
        self._device = device
        self._clock = clock
        self._link = link
        self._sense = sense
        self._steering = steering
        self._own_cpu_percent = own_cpu_percent
        self._rss_mib = process_rss_mib
        self._notifier = notifier
        self._status = status
        self._topics = Topics(config.tenant)
        self._service: ModelService
        self._updater: Updater
        self._pressure = PressureSample()
        self._memory = MemoryRule()
        self._interval = Interval(clock.monotonic())
        self._recent = Interval(clock.monotonic())
        self._ready: Ready | None = None
        self._point = 0
        self._worker_rss_mib = 0.0
        self._ota: UpdateStatus | None = None
        self._published: DeviceState | None = None
        self._last_sample: TelemetrySample | None = None
        self._source = ""
        self._due: dict[str, float] = {}

    def join(self, service: ModelService, updater: Updater) -> None:
        """Give the supervisor the two parts that call back into it."""
        self._service = service
        self._updater = updater

    # --- loop ---

    def run(self, should_stop: Callable[[], bool], wake_fd: int) -> None:
        """Serve until ``should_stop``.

        Args:
            should_stop: asked at least every :data:`TICK_S`.
            wake_fd: becomes readable on a signal.
        """
        self._updater.start()
        self._link.start()
        self._notifier.ready(self._config.device_id)
        while not should_stop():
            self._wait(wake_fd)
            self.tick()
        self._notifier.stopping()
        self._service.stop()
        self._steering.close()
        self._publish_state(online=False)
        self._link.flush(1.0)
        self._link.stop()
        self._status.close()

    def tick(self) -> None:
        """One turn: messages, workers, timers."""
        for item in self._link.poll():
            self._receive(item)
        self._service.tick()
        self._updater.tick()
        if self._is_due("sense", SENSE_S):
            self._adapt()
        if self._is_due("telemetry", self._config.telemetry_interval_s):
            self._publish_telemetry()
        if self._is_due("state", STATE_S):
            self._publish_state(online=True)
            self._notifier.alive()

    def _wait(self, wake_fd: int) -> None:
        poller = select.poll()
        fixed = (self._link.fileno(), self._status.fileno(), wake_fd)
        for fd in (*fixed, *self._service.filenos()):
            poller.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(TICK_S * 1000)}
        if self._status.fileno() in ready:
            self._status.answer(lambda data: responded(data, self._obey, self.status))

    def _is_due(self, name: str, period_s: float) -> bool:
        now = self._clock.monotonic()
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + period_s
        return True

    # --- link ---

    def _receive(self, item: Incoming) -> None:
        match item:
            case Connected():
                LOG.info("connected to the broker")
                self._updater.on_connected()
                self._publish_state(online=True, force=True)
            case Disconnected(reason):
                LOG.warning("no broker: %s", reason)
                self._updater.on_disconnected()
            case Message(topic, payload, retained):
                self._updater.on_message(topic, payload, retained)

    def report(self, status: UpdateStatus) -> None:
        """Publish an update's progress; the updater's report callback."""
        if status.deployment:  # without one it is about a message that was not believed
            self._ota = status
        self._link.publish(self._topics.ota(self._config.device_id), encode(status), qos=1)
        self._publish_state(online=True)

    def on_greeting(self, report: BrokerReport) -> None:
        """The server has just connected: say where we stand if it cannot have read that."""
        if not (report.retained and report.wildcard_retained):
            self._publish_state(online=True, force=True)

    # --- service ---

    def on_ready(self, token: str, ready: Ready) -> None:
        """A worker begins to serve."""
        self._ready = ready
        self._point = ready.point
        self._worker_rss_mib = ready.rss_mib
        self._govern(ready.point)
        self._interval = Interval(self._clock.monotonic())
        self._recent = Interval(self._clock.monotonic())
        self._updater.on_ready(token)

    def on_stats(self, token: str, stats: Stats) -> None:
        """Counts of the serving worker."""
        self._worker_rss_mib = stats.rss_mib or self._worker_rss_mib
        self._source = stats.source
        for interval in (self._interval, self._recent):
            interval.add(
                frames=stats.frames,
                dropped=stats.dropped,
                errors=stats.errors,
                labelled=stats.labelled,
                correct=stats.correct,
                low_confidence=stats.low_confidence,
                queue_depth=stats.queue_depth,
                gated=stats.gated,
                escalated=stats.escalated,
                latencies_ms=stats.latencies_ms,
            )
        counts = ServiceStats(
            frames=stats.frames,
            errors=stats.errors,
            labelled=stats.labelled,
            correct=stats.correct,
            latencies_ms=stats.latencies_ms,
        )
        self._updater.on_stats(token, counts)

    def on_results(self, release: PlacedRelease, results: Results) -> None:
        """Decisions of a worker of ``release``, passed on."""
        batch = ResultBatch(
            device_id=self._config.device_id,
            pipeline=self._config.pipeline.name,
            version=release.version,
            point=self._steering.point(release.digest, results.point),
            at=self._clock.now(),
            decisions=results.decisions,
        )
        topic = self._topics.results(self._config.device_id, self._config.pipeline.name)
        self._link.publish(topic, encode(batch))

    def on_point(self, event: PointChanged | PointRefused) -> None:
        """The worker moved along the ladder, or could not."""
        if isinstance(event, PointChanged):
            LOG.info("now on point %d", event.index)
            self._point = event.index
            return
        LOG.warning("point %d refused: %s: %s", event.index, event.code, event.cause)
        # The governor goes on from where the worker really is, and may ask again after a dwell.
        self._steering.refused(self._point, self._clock.monotonic())

    def on_golden(self, token: str, ok: bool, detail: str) -> None:
        """A golden test ended."""
        self._updater.on_golden(token, ok, detail)

    def on_worker_crash(self, token: str, detail: str) -> None:
        """A worker on trial died or hung."""
        self._updater.on_worker_crash(token, detail)

    def on_service_unhealthy(self, token: str, detail: str) -> None:
        """The committed release keeps crashing."""
        self._updater.on_service_unhealthy(token, detail)

    # --- governor ---

    def _govern(self, index: int) -> None:
        """Govern the serving release, from the rung where its worker stands."""
        serving = self._service.serving
        if serving is None:
            self._steering.release()
            return

        def ladder() -> list[Rung]:
            path = serving.manifest_path
            manifest = decode(path.read_bytes(), Manifest, str(path))
            return rungs(usable_points(manifest, self._device.profile_id, self._device.runtimes))

        self._steering.govern(serving.digest, ladder, index, self._clock.monotonic())

    def _adapt(self) -> None:
        """Sense, decide, and move the worker when the decision says so."""
        now = self._clock.monotonic()
        recent, self._recent = self._recent, Interval(now)
        own = OwnUse(
            self._own_cpu_percent((os.getpid(), *self._service.worker_pids)), self._worker_rss_mib
        )
        self._pressure = with_workload(self._sense(), recent, self._config.pipeline, own)
        before = self._memory.allowed
        self._memory = self._memory.after(self._config.governor, self._pressure, now)
        if self._memory.allowed != before:
            self._service.allow_cascade(self._memory.allowed)
        index = self._steering.decide(self._pressure, now)
        decision = self._steering.decision
        if index is not None and decision is not None:
            LOG.info("governor: point %s (%s)", decision.point, decision.reason)
            self._service.set_point(index)

    def _obey(self, request: Request) -> None:
        """Do what a person asks over the status socket."""
        if isinstance(request.pin, msgspec.UnsetType):
            return
        index = None if request.pin is None else self._steering.rung(request.pin)
        LOG.info("governor: %s", "no pin any more" if index is None else f"pinned to rung {index}")
        self._steering.pin(index)
        self._adapt()

    # --- reports ---

    def _publish_telemetry(self) -> None:
        interval, self._interval = self._interval, Interval(self._clock.monotonic())
        self._last_sample = self._sample(interval)
        topic = self._topics.telemetry(self._config.device_id)
        self._link.publish(topic, encode(self._last_sample))

    def _sample(self, interval: Interval) -> TelemetrySample:
        serving, pressure = self._service.serving, self._pressure
        elapsed_s = max(self._clock.monotonic() - interval.started, 1e-6)
        p50, p95, p99 = interval.quantiles_ms()
        return TelemetrySample(
            device_id=self._config.device_id,
            at=self._clock.now(),
            interval_s=round(elapsed_s, 3),
            release="" if serving is None else serving.release,
            version="" if serving is None else serving.version,
            pipeline=self._config.pipeline.name,
            ladder=self._steering.position(self._clock.now()),
            frames=interval.frames,
            frames_dropped=interval.dropped,
            queue_depth=interval.queue_depth,
            fps=round(interval.frames / elapsed_s, 2),
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
            errors=interval.errors,
            labelled=interval.labelled,
            correct=interval.correct,
            low_confidence=interval.low_confidence,
            frames_gated=interval.gated,
            frames_escalated=interval.escalated,
            load_ms=0.0 if self._ready is None else self._ready.load_ms,
            worker_restarts=self._service.restarts,
            cpu_percent=pressure.cpu_percent or 0.0,
            cpu_pressure=pressure.cpu_pressure_percent or 0.0,
            memory_available_mib=pressure.memory_available_mib or 0.0,
            supervisor_rss_mib=self._rss_mib(None),
            worker_rss_mib=self._worker_rss_mib,
            temperature_celsius=pressure.temperature_celsius,
            throttled=pressure.throttled,
        )

    def _state(self, online: bool) -> DeviceState:
        # Between two workers, and after the end of a file, it is still the committed release's.
        serving = self._service.serving or self._updater.active
        ota, decision = self._ota, self._steering.decision
        delivery = self._updater.delivery
        return DeviceState(
            device_id=self._config.device_id,
            online=online,
            profile=self._device.profile_id,
            agent_version=__version__,
            runtime="" if self._ready is None else self._ready.runtime,
            release="" if serving is None else serving.release,
            version="" if serving is None else serving.version,
            phase=Phase.IDLE if ota is None else ota.phase,
            deployment="" if ota is None else ota.deployment,
            detail=self._source or ("" if ota is None else ota.detail),
            point="" if decision is None else decision.point,
            delivery=f"{delivery.mode}: {delivery.reason}",
        )

    def _publish_state(self, *, online: bool, force: bool = False) -> None:
        """Publish the retained twin when it has changed."""
        state = self._state(online)
        if state == self._published and not force:
            return
        stamped = msgspec.structs.replace(state, at=self._clock.now())
        topic = self._topics.state(self._config.device_id)
        if self._link.publish(topic, encode(stamped), qos=1, retain=True):
            self._published = state

    def status(self) -> dict[str, Any]:
        """What ``edge-agent status`` shows."""
        state = msgspec.to_builtins(self._state(online=True))
        sample = self._last_sample or self._sample(self._interval)
        delivery = self._updater.delivery
        return {
            **state,
            "broker": "connected" if self._link.connected else "not connected",
            "worker_pids": self._service.worker_pids,
            "delivery": {"mode": delivery.mode, "reason": delivery.reason},
            "update": None if self._ota is None else msgspec.to_builtins(self._ota),
            "governor": self._steering.describe(),
            "telemetry": msgspec.to_builtins(sample),
        }
