"""The update path end to end: broker, server and agents are real processes, models are real."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.update.state import UpdateState
from edge_sdk.contracts.base import decode
from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.classifiers import Recipe
from tests.fakes.house import FleetHouse, wait_until


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def test_a_release_is_installed_replaced_refused_and_rolled_back(house: FleetHouse) -> None:
    house.add_device("d1")
    house.start_agent("d1")
    house.publish("1")
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"

    house.publish("2", (Recipe("onnx"),))
    assert house.wait_for_end(house.roll_out("2", "d1"), "d1") == "committed"

    path = house.folder / "d1" / "state" / "state.json"
    state = decode(path.read_bytes(), UpdateState, "state")
    probation = state.serving.probation if state.serving is not None else None
    assert probation is not None and probation.frames, "what it is held to from now on"
    assert {where.partition("/")[0] for where in probation.levels} == {"camera"}
    assert sum(level.frames for level in probation.levels.values()) > 0

    house.publish("3", (Recipe("onnx", threads=2),), golden_shift=0.5)
    refused = house.roll_out("3", "d1")
    assert house.wait_for_end(refused, "d1") == "rejected"

    house.publish("4", (Recipe("onnx-upside-down"),))
    worse = house.roll_out("4", "d1")
    assert house.wait_for_end(worse, "d1") == "rolled_back"
    house.wait_for_version("d1", "2")

    with house.client() as client:
        assert "golden" in " ".join(m.detail + m.code for m in client.rollout(refused).members)
        assert "labelled" in client.rollout(worse).members[0].detail


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSTOP], ids=["segfault", "hang"])
def test_a_worker_that_dies_or_hangs_is_replaced(house: FleetHouse, number: int) -> None:
    house.add_device("d1")
    house.start_agent("d1")
    house.publish("1")
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
    os.kill(house.worker_pid("d1"), number)

    def restarted_and_working() -> bool:
        sample = house.device("d1").telemetry
        return sample is not None and sample.worker_restarts == 1 and sample.labelled > 0

    wait_until(restarted_and_working, 60.0, "frames from a new worker")
    house.wait_for_version("d1", "1")


def test_an_operator_takes_a_good_release_back(house: FleetHouse) -> None:
    house.add_device("d1")
    house.start_agent("d1")
    for version in ("1", "2"):
        house.publish(version, (Recipe("onnx", threads=int(version)),))
        assert house.wait_for_end(house.roll_out(version, "d1"), "d1") == "committed"
    with house.client() as client:
        client.rollback()
    house.wait_for_version("d1", "1")
