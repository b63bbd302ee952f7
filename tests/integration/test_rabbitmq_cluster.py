"""Updates through a RabbitMQ cluster whose nodes keep retained messages each for themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.fakes.house import FleetHouse, wait_until
from tests.fakes.rabbits import RabbitNode, rabbit_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RabbitNode]]:
    with rabbit_cluster(tmp_path_factory.mktemp("rabbits"), size=3) as running:
        yield running


class Client:
    """A client of one node, and all it hears."""

    def __init__(self, node: RabbitNode, name: str) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        self.client.on_message = lambda _c, _u, m: self.heard.append((m.topic, m.payload, m.retain))
        self.client.connect("127.0.0.1", node.port)
        self.client.loop_start()
        wait_until(self.client.is_connected, 20.0, f"{name} to connect")

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_messages_cross_the_cluster_and_retained_ones_do_not(nodes: list[RabbitNode]) -> None:
    """Why there has to be another way; should this fail, RabbitMQ has learnt it."""
    here, there = Client(nodes[0], "here"), Client(nodes[2], "there")
    try:
        here.client.publish("t/kept", b"x", 1, retain=True).wait_for_publish(20)
        there.client.subscribe("t/#", 1)
        there.client.subscribe("t/kept", 1)
        wait_until(lambda: _flows(here, there), 20.0, "a plain message to cross")
        assert "t/kept" not in {topic for topic, _, _ in there.heard}
        here.client.subscribe("t/kept", 1)
        wait_until(lambda: ("t/kept", b"x", True) in here.heard, 20.0, "it on its own node")
    finally:
        here.stop()
        there.stop()


def _flows(here: Client, there: Client) -> bool:
    here.client.publish("t/plain", b"y", 1)
    return any(topic == "t/plain" for topic, _, _ in there.heard)


def test_an_update_on_the_servers_node_and_on_another(
    nodes: list[RabbitNode], tmp_path: Path
) -> None:
    house = FleetHouse(tmp_path, nodes[0])  # type: ignore[arg-type]  # as far as it is used
    try:
        house.add_device("near")
        house.broker = nodes[1]  # type: ignore[assignment]
        house.add_device("far")
        for device in ("near", "far"):
            house.start_agent(device)
        house.publish("1")
        rollout = house.roll_out("1", "near", "far")
        for device in ("near", "far"):
            assert house.wait_for_end(rollout, device, 120.0) == "committed"
        assert "come by response" in house.agents["far"].output()
        assert "come by response" not in house.agents["near"].output()
    finally:
        house.stop()
