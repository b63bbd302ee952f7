"""Releases from a mirror and, when it is gone, from the broker: real server, agent and brokers."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.brokers import RunningBroker, broker
from tests.fakes.classifiers import Recipe
from tests.fakes.house import FleetHouse
from tests.fakes.mirrors import RangeServer

__all__ = ["broker"]


def test_a_fleet_with_a_mirror(broker: RunningBroker, tmp_path: Path) -> None:
    house, mirror = FleetHouse(tmp_path, broker), RangeServer({})
    try:
        house.mirror = mirror.url
        house.add_device("d1")
        house.start_agent("d1")
        house.publish("1")
        blobs = tmp_path / "release-1" / "blobs"
        mirror.blobs = {path.name: path.read_bytes() for path in blobs.iterdir()}
        assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
        assert {digest for digest, _, _ in mirror.asked} == set(mirror.blobs)
        assert mirror.sent_bytes.total() == sum(map(len, mirror.blobs.values()))
        mirror.stop()
        house.publish("2", (Recipe("onnx", size_px=6),))
        assert house.wait_for_end(house.roll_out("2", "d1"), "d1") == "committed"
        assert "going on over MQTT" in house.agents["d1"].output()
    finally:
        house.stop()
