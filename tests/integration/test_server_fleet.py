"""The fleet server against real brokers: seeding, rollouts, and being killed at any time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge_sdk.client.api import FleetClient
from edge_sdk.contracts.fleet import ENDED, MemberStatus, RolloutInfo, RolloutState
from edge_sdk.contracts.telemetry import LadderPosition, PipelineSample
from edge_sdk.contracts.update import Phase
from tests.fakes.brokers import RunningBroker, broker
from tests.fakes.fleet import PahoDevice, RunningServer, device_trust, write_release
from tests.fakes.updating import tiny_release

__all__ = ["broker"]

PATIENCE_SECONDS = 60.0


def eventually(check: Callable[[], object], what: str) -> None:
    """Wait for a condition, and say what was waited for when it does not come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.05)


class Scene:
    """A broker, a server and devices."""

    def __init__(self, broker: RunningBroker, folder: Path, stack: ExitStack) -> None:
        self.broker = broker
        self.folder = folder
        self._stack = stack
        self.server = RunningServer(folder / "data", broker.url)
        stack.callback(self.server.stop)

    def client(self) -> FleetClient:
        client = self.server.client()
        self._stack.callback(client.close)
        return client

    def device(self, name: str, verdict: Callable[[str], Phase] | None = None) -> PahoDevice:
        device = PahoDevice(
            self.broker.port,
            name,
            device_trust(self.client()),
            verdict=verdict or (lambda _: Phase.COMMITTED),
        )
        self._stack.callback(device.stop)
        known = self.client()
        eventually(
            lambda: any(d.id == name and d.online for d in known.devices()), f"{name} online"
        )
        return device

    def publish(self, version: str, size: int = 300_000) -> None:
        folder = write_release(tiny_release(version, size=size), self.folder / f"v{version}")
        self.client().publish_release(folder)

    def finished(self) -> RolloutInfo:
        client = self.client()
        eventually(lambda: client.rollout().state in ENDED, "the rollout ends")
        return client.rollout()


@pytest.fixture
def scene(broker: RunningBroker, tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(broker, tmp_path, stack)


def running(client: FleetClient) -> dict[str, str]:
    return {device.id: device.version for device in client.devices()}


def wanted(client: FleetClient) -> dict[str, str]:
    return {device.id: device.desired_version for device in client.devices()}


def test_two_versions_reach_every_device(scene: Scene) -> None:
    client = scene.client()
    scene.publish("1")
    devices = [scene.device(f"cam-{number}") for number in range(3)]
    client.create_rollout("digits", "1")
    assert scene.finished().state is RolloutState.DONE
    eventually(lambda: set(running(client).values()) == {"1"}, "all report version 1")
    scene.publish("2")
    client.create_rollout("digits", "2", canary=1)
    info = scene.finished()
    assert info.state is RolloutState.DONE
    assert [member.canary for member in info.members] == [True, False, False]
    assert [device.version for device in devices] == ["2", "2", "2"]
    assert [device.counters for device in devices] == [[1, 2]] * 3
    states = [e.phase for e in client.events(0, 1000) if e.kind == "rollout"]
    assert states == ["done", "full", "done"] or states == [
        "full",
        "done",
        "canary",
        "full",
        "done",
    ]


def test_a_refused_version_leaves_every_device_on_the_old_one(scene: Scene) -> None:
    client = scene.client()
    scene.publish("1")
    scene.publish("2")
    picky = scene.device("cam-a", lambda v: Phase.ROLLED_BACK if v == "2" else Phase.COMMITTED)
    calm = scene.device("cam-b")
    client.create_rollout("digits", "1")
    scene.finished()
    client.create_rollout("digits", "2", canary=1)
    info = scene.finished()
    assert info.state is RolloutState.FAILED
    assert "cam-a rolled back" in info.reason
    assert [m.status for m in info.members] == [MemberStatus.FAILED, MemberStatus.WAITING]
    assert wanted(client) == {"cam-a": "1", "cam-b": "1"}
    eventually(lambda: picky.counters == [1, 2, 3], "cam-a is pointed back at version 1")
    assert calm.counters == [1]


def test_a_paused_rollout_reaches_nobody_else_until_it_goes_on(scene: Scene) -> None:
    client = scene.client()
    scene.publish("1")
    scene.publish("2")
    first = scene.device("cam-a")
    others = [scene.device(name) for name in ("cam-b", "cam-c")]
    client.create_rollout("digits", "1")
    scene.finished()
    client.create_rollout("digits", "2", canary=1)
    assert client.pause().paused
    eventually(lambda: wanted(client)["cam-a"] == "1" or first.version == "2", "cam-a has decided")
    scene.server.stop()
    scene.server.start()
    client = scene.client()
    time.sleep(1.0)
    assert client.rollout().state is RolloutState.CANARY
    assert [device.version for device in others] == ["1", "1"]
    assert not client.resume().paused
    assert scene.finished().state is RolloutState.DONE
    eventually(
        lambda: running(client) == {"cam-a": "2", "cam-b": "2", "cam-c": "2"}, "all run version 2"
    )


def test_an_operator_takes_a_rollout_back(scene: Scene) -> None:
    client = scene.client()
    scene.publish("1")
    scene.publish("2")
    device = scene.device("cam-a")
    for version in ("1", "2"):
        client.create_rollout("digits", version)
        scene.finished()
    assert client.rollback().state is RolloutState.ROLLED_BACK
    eventually(lambda: device.version == "1", "cam-a runs version 1 again")
    assert device.counters == [1, 2, 3]
    eventually(lambda: running(client) == {"cam-a": "1"}, "the server knows")


def test_a_killed_broker_is_seeded_again(scene: Scene) -> None:
    client = scene.client()
    scene.publish("1", size=3_000_000)
    device = scene.device("cam-a")
    client.create_rollout("digits", "1")
    scene.broker.kill()
    scene.broker.start()
    assert scene.finished().state is RolloutState.DONE
    late = scene.device("cam-late")
    assert device.version == "1"
    scene.broker.kill()
    scene.broker.start()
    eventually(
        lambda: {d.id: d.online for d in client.devices()} == {"cam-a": True, "cam-late": True},
        "both devices are back",
    )
    client.create_rollout("digits", "1", devices=("cam-late",))
    assert scene.finished().state is RolloutState.DONE
    assert late.version == "1"


def test_a_killed_server_goes_on_where_it_was(scene: Scene) -> None:
    scene.publish("1", size=3_000_000)
    scene.publish("2", size=3_000_000)
    device = scene.device("cam-a")
    for version in ("1", "2"):
        scene.client().create_rollout("digits", version)
        scene.server.stop(signal.SIGKILL)
        scene.server.start()
        info = scene.finished()
        assert (info.state, info.version) == (RolloutState.DONE, version)
    assert device.version == "2"
    assert device.counters == [1, 2]
    assert [r.version for r in scene.client().rollouts()] == ["2", "1"]


def test_a_verdict_given_while_the_server_was_dead_counts(scene: Scene) -> None:
    scene.publish("1")
    dead = threading.Event()

    def verdict(_: str) -> Phase:
        return Phase.COMMITTED if dead.wait(PATIENCE_SECONDS) else Phase.REJECTED

    device = scene.device("cam-a", verdict)
    client = scene.client()
    client.create_rollout("digits", "1")
    eventually(lambda: client.device("cam-a").phase == "downloading", "cam-a downloads")
    scene.server.stop(signal.SIGKILL)
    dead.set()
    eventually(lambda: device.version == "1", "cam-a commits")
    scene.server.start()
    assert scene.finished().state is RolloutState.DONE


def test_chunks_of_old_releases_leave_the_broker(scene: Scene) -> None:
    client = scene.client()
    scene.device("cam-a")
    for version in ("1", "2", "3"):
        scene.publish(version)
        client.create_rollout("digits", version)
        assert scene.finished().state is RolloutState.DONE
    seen = RetainedTopics(scene.broker.port)
    try:
        eventually(lambda: seen.digests_settled(), "the retained topics settle")
        digests = {version: tiny_release(version, size=300_000) for version in ("1", "2", "3")}
        gone, kept = set(digests["1"].blobs), set(digests["2"].blobs) | set(digests["3"].blobs)
        eventually(lambda: not seen.digests() & gone, "version 1 is cleared")
        assert kept <= seen.digests()
    finally:
        seen.stop()


class RetainedTopics:
    """Watches every chunk topic."""

    def __init__(self, port: int) -> None:
        import paho.mqtt.client as mqtt

        self._topics: set[str] = set()
        self._changed = time.monotonic()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="watch")
        self._client.on_message = self._message
        self._client.on_connect = lambda client, *_: client.subscribe("edge/b/#", 0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _message(self, _c: object, _u: object, message: object) -> None:
        self._changed = time.monotonic()
        topic, payload = message.topic, message.payload  # type: ignore[attr-defined]
        (self._topics.add if payload else self._topics.discard)(topic)

    def digests(self) -> set[str]:
        return {topic.split("/")[2] for topic in list(self._topics)}

    def digests_settled(self) -> bool:
        return bool(self._topics) and time.monotonic() - self._changed > 0.5

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def moves(client: FleetClient) -> list[str]:
    return [event.text for event in client.events(0, 1000) if event.kind == "ladder"]


def test_telemetry_becomes_accuracy_events_and_metrics(scene: Scene) -> None:
    import httpx

    client = scene.client()
    device = scene.device("cam-a")

    def position(index: int, reason: str) -> LadderPosition:
        return LadderPosition(index=index, size=3, point=f"p{index}", reason=reason, since=1.0)

    device.telemetry(frames=10, labelled=10, correct=9, ladder=position(0, "startup"))
    device.telemetry(frames=10, labelled=10, correct=8, ladder=position(1, "pressure-cpu"))
    eventually(lambda: client.device("cam-a").labelled == 20, "both samples are counted")
    assert client.device("cam-a").accuracy == pytest.approx(0.85)
    assert moves(client) == ["cam-a stepped down to p1 (pressure-cpu)."]
    for index in (0, 2):
        door = PipelineSample(pipeline="door", ladder=position(1, "pressure-cpu"))
        yard = PipelineSample(pipeline="yard", ladder=position(index, "priority"))
        device.telemetry(frames=5, ladder=door.ladder, pipelines=(door, yard))
    eventually(lambda: len(moves(client)) == 2, "the step of the less important pipeline")
    assert moves(client)[-1] == "cam-a yard stepped down to p2 (priority)."
    token = (scene.server.data / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    text = httpx.get(f"{scene.server.url}/metrics", headers=headers, trust_env=False).text
    assert 'edge_device_accuracy_ratio{device="cam-a"} 0.85' in text
    assert 'edge_device_ladder_index{device="cam-a"} 1.0' in text
    assert 'edge_pipeline_ladder_index{device="cam-a",pipeline="yard"} 2.0' in text
    page = httpx.get(scene.server.url, headers=headers, trust_env=False).text
    assert "door <b>2/3</b> <code>p1</code> <small>pressure-cpu</small>" in page
    assert "yard <b>3/3</b> <code>p2</code> <small>priority</small>" in page
    assert "edge_broker_connected 1.0" in text


def test_nonsense_from_a_device_is_refused_and_counted(scene: Scene) -> None:
    import httpx

    client = scene.client()
    device = scene.device("cam-a")
    for leaf in ("state", "ota", "tel", "req"):
        device.publish(leaf, b"{not json")
        device.publish(leaf, b'{"device_id": "cam-b"}')
    device.publish("tel", b" " * 70_000)
    device.telemetry(frames=1, labelled=1, correct=1)
    eventually(lambda: client.device("cam-a").labelled == 1, "good messages still count")
    assert [d.id for d in client.devices()] == ["cam-a"]
    token = (scene.server.data / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    text = httpx.get(f"{scene.server.url}/metrics", headers=headers, trust_env=False).text
    assert "edge_messages_refused_total 9.0" in text
