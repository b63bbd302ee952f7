"""The agent's updater and link on a real broker, without models: a scripted host runs releases."""

from __future__ import annotations

import select
import threading
from pathlib import Path

from agent.config import BrokerConfig
from agent.link.mqtt import Connected, Disconnected, Message, MqttLink
from agent.run import SystemClock
from agent.update.limits import UpdateLimits
from agent.update.trust import Device
from agent.update.updater import Updater
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.trust import TrustRoot
from edge_sdk.contracts.update import DeviceState, Phase, UpdateStatus
from tests.fakes.updating import Behaviour, FakeHost, FakeSensors


class _AnyRelease(dict[str, Behaviour]):
    def __missing__(self, version: str) -> Behaviour:
        return Behaviour()


class ThinDevice:
    """A device in a thread of its own.

    Args:
        port: the broker's.
        device_id: its name.
        trust: whom it believes.
        folder: its state.
        limits: of its updates.
    """

    def __init__(
        self,
        port: int,
        device_id: str,
        trust: TrustRoot,
        folder: Path,
        limits: UpdateLimits | None = None,
        tenant: str = "edge",
    ) -> None:
        self.device_id, self._topics = device_id, Topics(tenant)
        gone = encode(DeviceState(device_id=device_id, online=False))
        will = (self._topics.state(device_id), gone)
        broker = BrokerConfig(host="127.0.0.1", port=port)
        self._link = MqttLink(broker, device_id, will)
        self._host = FakeHost(_AnyRelease())
        self.reports: list[UpdateStatus] = []
        self.updater = Updater(
            device=Device(device_id, "rpi4", ("litert",)),
            topics=self._topics,
            state_dir=folder,
            trust=trust,
            link=self._link,
            host=self._host,
            sensors=FakeSensors(),
            clock=SystemClock(),
            report=self._report,
            limits=limits or UpdateLimits(disk_margin_bytes=0),
            greeted=lambda _: self._tell_state(),
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=device_id, daemon=True)
        self._thread.start()

    @property
    def version(self) -> str:
        """What is committed."""
        active = self.updater.active
        return active.version if active is not None else ""

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join(20)

    def _run(self) -> None:
        self.updater.start()
        self._link.start()
        while not self._stopping.is_set():
            select.select([self._link.fileno()], [], [], 0.05)
            for item in self._link.poll():
                self._receive(item)
            self.updater.tick()
            self._host.run(self.updater)
        self._link.stop()

    def _receive(self, item: Message | Connected | Disconnected) -> None:
        match item:
            case Connected():
                self.updater.on_connected()
                self._tell_state()
            case Disconnected():
                self.updater.on_disconnected()
            case Message(topic, payload, retained):
                self.updater.on_message(topic, payload, retained)

    def _report(self, status: UpdateStatus) -> None:
        self.reports.append(status)
        self._link.publish(self._topics.ota(self.device_id), encode(status), qos=1)
        self._tell_state()

    def _tell_state(self) -> None:
        state = DeviceState(
            device_id=self.device_id,
            online=True,
            profile="rpi4",
            version=self.version,
            phase=self.updater.state.phase if self.updater.state else Phase.IDLE,
            delivery=str(self.updater.delivery),
        )
        self._link.publish(self._topics.state(self.device_id), encode(state), 1, True)
