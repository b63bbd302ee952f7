"""An update by delta from the publisher to a serving device: real server, broker and agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.classifiers import Recipe, make_release
from tests.fakes.house import FleetHouse
from tests.fakes.ladders import PADDING_BYTES, with_deltas


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def test_a_device_makes_its_new_release_from_its_old_one(house: FleetHouse) -> None:
    first, second = (
        make_release(
            house.folder / version,
            (Recipe("onnx", padding_bytes=PADDING_BYTES - 2 * int(version)),),
            version=version,
        )
        for version in ("1", "2")
    )
    second = with_deltas(second, first)
    assert second.manifest.deltas
    house.add_device("d1")
    house.start_agent("d1")
    for made, version in ((first, "1"), (second, "2")):
        house.publish_made(made, version)
        rollout = house.roll_out(version, "d1")
        assert house.wait_for_end(rollout, "d1") == "committed"
    house.wait_for_version("d1", "2")
    with house.client() as client:
        (member,) = client.rollout(rollout).members
    assert member.bytes_saved_delta > PADDING_BYTES // 2
    assert member.bytes_received < PADDING_BYTES // 2
    assert "reconstructing" in member.seconds_in
