"""Listens to the fleet over MQTT and keeps what the story needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_sdk.contracts.base import decode
from edge_sdk.contracts.telemetry import ResultBatch, TelemetrySample
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import FINAL_PHASES, DeviceState, Phase, UpdateStatus

MAX_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline."""

    at_s: float
    """Seconds since the watch began."""
    device: str
    version: str
    phase: Phase
    detail: str


@dataclass(slots=True)
class Score:
    """How a device did on its labelled stream with one version."""

    frames: int = 0
    labelled: int = 0
    correct: int = 0

    @property
    def accuracy(self) -> float:
        """Share of labelled frames that were right."""
        return self.correct / self.labelled if self.labelled else 0.0


@dataclass(slots=True)
class DeviceLog:
    """What one device has said."""

    state: DeviceState | None = None
    last: UpdateStatus | None = None
    order: bytes = b""
    """The last signed desired state the device was given."""
    ends: dict[str, Phase] = field(default_factory=dict)
    """How the deployment of a version ended, by version; a restored release is no new end."""
    scores: dict[str, Score] = field(default_factory=dict)
    """By version, from the published results."""
    samples: list[TelemetrySample] = field(default_factory=list)


class FleetWatch:
    """Subscribes to everything a fleet says.

    Args:
        port: of the broker on this machine.
        tenant: the fleet.
        on_moment: called, from the network thread, at each change of an update's phase.
    """

    def __init__(self, port: int, tenant: str, on_moment: Callable[[Moment], None]) -> None:
        self.topics = Topics(tenant)
        self._on_moment = on_moment
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._devices: dict[str, DeviceLog] = {}
        self.moments: list[Moment] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="edge-demo")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        """Stop listening."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish retained messages, as anybody may on a broker without access rules."""
        for topic, payload in messages:
            self._client.publish(topic, payload, qos=1, retain=True)

    def elapsed_s(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self._started

    def device(self, device_id: str) -> DeviceLog:
        """What one device has said so far."""
        with self._lock:
            return self._devices.setdefault(device_id, DeviceLog())

    def devices(self) -> Iterator[tuple[str, DeviceLog]]:
        """All devices, by name."""
        with self._lock:
            return iter(sorted(self._devices.items()))

    def _on_connect(self, client: Any, _u: Any, _f: Any, _r: Any, _p: Any) -> None:
        for leaf in ("state", "ota", "tel", "out/+", "desired"):
            client.subscribe(self.topics.every_device(leaf), 1)

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        found = self.topics.parse_device(message.topic)
        if found is None or not message.payload:
            return
        device_id, leaf = found
        log = self.device(device_id)
        data = bytes(message.payload)
        if leaf == "desired":
            log.order = data
        elif leaf == "state":
            log.state = decode(data, DeviceState, message.topic)
        elif leaf == "ota":
            self._update(log, decode(data, UpdateStatus, message.topic))
        elif leaf == "tel":
            log.samples.append(decode(data, TelemetrySample, message.topic))
            del log.samples[:-MAX_KEPT]
        elif leaf.startswith("out/"):
            self._count(log, decode(data, ResultBatch, message.topic))

    def _update(self, log: DeviceLog, status: UpdateStatus) -> None:
        before, log.last = log.last, status
        if status.phase in FINAL_PHASES:
            log.ends.setdefault(status.version, status.phase)
        if before is not None and (before.phase, before.deployment) == (
            status.phase,
            status.deployment,
        ):
            return
        moment = Moment(
            self.elapsed_s(), status.device_id, status.version, status.phase, status.detail
        )
        self.moments.append(moment)
        self._on_moment(moment)

    def _count(self, log: DeviceLog, batch: ResultBatch) -> None:
        score = log.scores.setdefault(batch.version, Score())
        score.frames += len(batch.decisions)
        for decision in batch.decisions:
            if decision.expected:
                score.labelled += 1
                score.correct += decision.label == decision.expected
