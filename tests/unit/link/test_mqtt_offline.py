"""What the agent publishes while there is no broker, against a real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.config import BrokerConfig
from agent.link.mqtt import HELD_TOPICS, Connected, MqttLink
from tests.fakes.brokers import RunningBroker, running_broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with running_broker("amqtt", tmp_path) as broker:
        yield broker


class Listener:
    """Another client that hears everything."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("t1/#", 1)
        self.client.loop_start()
        assert ready.wait(20)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def poll_until(link: MqttLink, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return
        link.poll()
        time.sleep(0.02)
    raise AssertionError("not in time")


def test_of_what_is_published_offline_the_newest_per_topic_arrives(broker: RunningBroker) -> None:
    listener = Listener(broker.port)
    link = MqttLink(BrokerConfig(host="127.0.0.1", port=broker.port), "cam-1", ("t1/will", b"x"))
    assert not link.publish("t1/tel", b"lost", qos=0)
    for number in range(2000):
        assert link.publish("t1/ota", b"%d" % number, qos=1)
        assert link.publish("t1/state", b"%d" % number, qos=1, retain=True)
    assert link.publish("t1/req", b"more", qos=1)
    link.start()
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not any(
            isinstance(item, Connected) for item in link.poll()
        ):
            time.sleep(0.01)
        assert link.publish("t1/state", b"fresh", qos=1, retain=True)
        poll_until(link, lambda: len(listener.heard) >= 3)
        link.flush(5.0)
        time.sleep(0.3)
        assert listener.heard == [
            ("t1/state", b"fresh"),
            ("t1/ota", b"1999"),
            ("t1/req", b"more"),
        ]
    finally:
        link.stop()
        listener.stop()


def test_the_topics_that_wait_are_bounded(broker: RunningBroker) -> None:
    listener = Listener(broker.port)
    link = MqttLink(BrokerConfig(host="127.0.0.1", port=broker.port), "cam-1", ("t1/will", b"x"))
    for number in range(HELD_TOPICS + 3):
        link.publish(f"t1/{number}", b"x", qos=1)
    link.start()
    try:
        poll_until(link, lambda: len(listener.heard) >= HELD_TOPICS)
        expected = [f"t1/{number}" for number in range(3, HELD_TOPICS + 3)]
        assert [topic for topic, _ in listener.heard] == expected
    finally:
        link.stop()
        listener.stop()
