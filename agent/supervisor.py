"""The agent's main loop: one thread that joins link, updates, pipelines, governors and reports.

Nothing here decides; it carries messages between the parts that do.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agent.adapt.steering import decide_together
from agent.config import AgentConfig
from agent.link.mqtt import Connected, Disconnected, Incoming, Message, MqttLink
from agent.meter import Interval
from agent.notify import Notifier
from agent.sense.sample import PressureSample
from agent.status import Request, StatusSocket, responded
from agent.stream import Stream
from agent.update.ports import Clock, PlacedRelease
from agent.update.trust import Device
from agent.update.updater import Updater
from edge_sdk import __version__
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import DeviceState, Phase, UpdateStatus
from edge_sdk.errors import UsageError
from edge_sdk.suggest import did_you_mean

LOG = logging.getLogger(__name__)

TICK_S = 0.1
SENSE_S = 0.5
ALARM_S = 0.1
"""The same while frames are late: the governor does not wait for its tick."""
STATE_S = 1.0


class Supervisor:
    """Joins the parts; build it with :func:`agent.run.build`.

    Args:
        config: the agent's configuration.
        device: its profile and the runtimes that work here.
        clock: time.
        link: the broker.
        sense: reads pressure; called about twice a second.
        streams: the pipelines, the most important first.
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
        streams: Sequence[Stream],
        process_rss_mib: Callable[[int | None], float],
        notifier: Notifier,
        status: StatusSocket,
    ) -> None:
        self._config = config
        self._device = device
        self._clock = clock
        self._link = link
        self._sense = sense
        self._streams = streams
        self._rss_mib = process_rss_mib
        self._notifier = notifier
        self._status = status
        self._topics = Topics(config.tenant)
        self._updater: Updater
        self._pressure = PressureSample()
        self._ota: UpdateStatus | None = None
        self._published: DeviceState | None = None
        self._last_sample: TelemetrySample | None = None
        self._due: dict[str, float] = {}

    def join(self, updater: Updater) -> None:
        """Give the supervisor the part that calls back into it."""
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
        for stream in self._streams:
            stream.service.leave()
        for stream in self._streams:
            stream.service.stop()
            stream.steering.close()
        self._publish_state(online=False)
        self._link.flush(1.0)
        self._link.stop()
        self._status.close()

    def tick(self) -> None:
        """One turn: messages, workers, timers."""
        for item in self._link.poll():
            self._receive(item)
        for stream in self._streams:
            stream.service.tick()
        self._updater.tick()
        alarmed = any(stream.alarmed for stream in self._streams)
        if self._is_due("sense", SENSE_S) or (alarmed and self._is_due("alarm", ALARM_S)):
            self._adapt()
        if self._is_due("telemetry", self._config.telemetry_interval_s):
            self._publish_telemetry()
        if self._is_due("state", STATE_S):
            self._publish_state(online=True)
            self._notifier.alive()

    def _wait(self, wake_fd: int) -> None:
        poller = select.poll()
        fixed = (self._link.fileno(), self._status.fileno(), wake_fd)
        workers = (fd for stream in self._streams for fd in stream.service.filenos())
        for fd in (*fixed, *workers):
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

    # --- governor ---

    def _adapt(self) -> None:
        """Sense once, decide for all pipelines, and move the workers that must."""
        now = self._clock.monotonic()
        self._pressure = self._sense()
        seats = [stream.seat(self._pressure, now) for stream in self._streams]
        for stream, index in zip(self._streams, decide_together(seats, now), strict=True):
            stream.move(index)

    def _obey(self, request: Request) -> None:
        """Do what a person asks over the status socket."""
        if not isinstance(request.paused, msgspec.UnsetType):
            LOG.info("downloads %s", "wait" if request.paused else "may run")
            self._updater.holding.paused = request.paused
        if isinstance(request.pin, msgspec.UnsetType):
            return
        streams = self._named(request.pipeline)
        pins = [
            None if request.pin is None else stream.steering.rung(request.pin) for stream in streams
        ]
        for stream, index in zip(streams, pins, strict=True):
            what = "no pin any more" if index is None else f"pinned to rung {index}"
            LOG.info("%s: %s", stream.config.name, what)
            stream.steering.pin(index)
        self._adapt()

    def _named(self, name: str) -> Sequence[Stream]:
        """The pipeline of that name; all for an empty one."""
        names = [stream.config.name for stream in self._streams]
        if name and name not in names:
            raise UsageError(
                "unknown-pipeline",
                f"This agent has no pipeline {name[:200]!r}; it has {', '.join(names)}.",
                did_you_mean(name[:200], names) or "Leave the pipeline out to mean all.",
            )
        return [stream for stream in self._streams if name in ("", stream.config.name)]

    # --- reports ---

    def _publish_telemetry(self) -> None:
        self._last_sample = self._sample(afresh=True)
        topic = self._topics.telemetry(self._config.device_id)
        self._link.publish(topic, encode(self._last_sample))

    def _sample(self, *, afresh: bool) -> TelemetrySample:
        measured = [stream.measured(afresh=afresh) for stream in self._streams]
        interval = Interval.of([part for _, part in measured])
        samples = tuple(sample for sample, _ in measured)
        first, serving, pressure = samples[0], self._serving, self._pressure
        now = self._clock.monotonic()
        return TelemetrySample(
            device_id=self._config.device_id,
            at=self._clock.now(),
            interval_s=round(max(now - interval.started, 1e-6), 3),
            release="" if serving is None else serving.release,
            version="" if serving is None else serving.version,
            pipeline=first.pipeline,
            ladder=first.ladder,
            load_ms=first.load_ms,
            worker_restarts=sum(sample.worker_restarts for sample in samples),
            cpu_percent=pressure.cpu_percent or 0.0,
            cpu_pressure=pressure.cpu_pressure_percent or 0.0,
            memory_available_mib=pressure.memory_available_mib or 0.0,
            supervisor_rss_mib=self._rss_mib(None),
            worker_rss_mib=round(sum(sample.worker_rss_mib for sample in samples), 1),
            temperature_celsius=pressure.temperature_celsius,
            throttled=pressure.throttled,
            pipelines=samples if len(samples) > 1 else (),
            **interval.figures(now),
        )

    @property
    def _serving(self) -> PlacedRelease | None:
        """The release of the most important pipeline that serves."""
        serving = (stream.service.serving for stream in self._streams)
        return next((release for release in serving if release is not None), None)

    def _state(self, online: bool) -> DeviceState:
        # Between two workers, and after the end of a file, it is still the committed release's.
        serving = self._serving or self._updater.active
        first, ota = self._streams[0], self._ota
        decision = first.steering.decision
        return DeviceState(
            device_id=self._config.device_id,
            online=online,
            profile=self._device.profile_id,
            agent_version=__version__,
            runtime="" if first.ready is None else first.ready.runtime,
            release="" if serving is None else serving.release,
            version="" if serving is None else serving.version,
            phase=Phase.IDLE if ota is None else ota.phase,
            deployment="" if ota is None else ota.deployment,
            counter=0 if ota is None else ota.counter,
            detail=self._source_trouble() or ("" if ota is None else ota.detail),
            point="" if decision is None else decision.point,
            delivery=str(self._updater.delivery),
            root_version=self._updater.trusted_versions.get("root", 0),
        )

    def _source_trouble(self) -> str:
        troubled = [stream for stream in self._streams if stream.source]
        if len(self._streams) == 1:
            return "".join(stream.source for stream in troubled)
        return "; ".join(f"{stream.config.name}: {stream.source}" for stream in troubled)

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
        sample = self._last_sample or self._sample(afresh=False)
        pids = [pid for stream in self._streams for pid in stream.service.worker_pids]
        document = {
            **state,
            "broker": "connected" if self._link.connected else "not connected",
            "worker_pids": pids,
            "paused": self._updater.holding.paused,
            "update": None if self._ota is None else msgspec.to_builtins(self._ota),
            "trust": dict(self._updater.trusted_versions),
            "telemetry": msgspec.to_builtins(sample),
        }
        if len(self._streams) == 1:
            return {**document, "governor": self._streams[0].steering.describe()}
        names = (stream.config.name for stream in self._streams)
        described = (stream.describe() for stream in self._streams)
        return {**document, "pipelines": dict(zip(names, described, strict=True))}
