"""A release with recipes from the publisher to a serving device: real server, broker and agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.classifiers import PROFILE
from tests.fakes.house import FleetHouse
from tests.fakes.ladders import PADDING_BYTES, padded_ladder


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def test_points_that_were_never_sent_are_tested_and_serve(house: FleetHouse) -> None:
    made = padded_ladder(house.folder / "ladder")
    house.publish_made(made, "1")
    house.add_device("d1")
    house.start_agent("d1")
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
    house.wait_for_version("d1", "1")
    points = made.manifest.ladders[PROFILE]
    kept = {path.name: path.stat().st_size for path in _blobs(house).iterdir()}
    assert [point.artifact in kept for point in points] == [True, False, False]
    assert sum(kept.values()) < 2 * PADDING_BYTES
    house.agents["d1"].stop()
    house.start_agent("d1")
    house.wait_for_version("d1", "1")


def _blobs(house: FleetHouse) -> Path:
    (folder,) = (house.folder / "d1").rglob("blobs")
    return folder
