"""SIGKILL at durable steps of an update, and to every process in every phase.

However it is cut short, an update ends in the right version once everything runs again. Every step
is cut in the simulated matrix of ``tests/unit/update``; here a sample of them meets real processes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.update.state import UpdateState
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.update import FINAL_PHASES, Phase
from tests.fakes.brokers import RunningBroker, broker, running_broker  # noqa: F401 - a fixture
from tests.fakes.classifiers import Recipe
from tests.fakes.house import FleetHouse, wait_until
from tests.fakes.processes import Process

GOOD = (Recipe("onnx", padding_bytes=200_000),)
WORSE = (Recipe("onnx-upside-down"),)
AT_ONCE = 4
"""Devices that update at the same time; the machine has few cores."""


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


@pytest.fixture
def calm_house(tmp_path: Path) -> Iterator[FleetHouse]:
    """A house whose broker is the embedded one."""
    with running_broker("amqtt", tmp_path) as calm:
        house = FleetHouse(tmp_path, calm)
        try:
            yield house
        finally:
            house.stop()


def install_first(house: FleetHouse, device_id: str) -> None:
    house.add_device(device_id)
    house.start_agent(device_id)
    house.publish("1")
    assert house.wait_for_end(house.roll_out("1", device_id), device_id) == "committed"


def clone(house: FleetHouse, original: str, device_id: str) -> None:
    """Another device whose disk looks like the original's."""
    home = house.add_device(device_id)
    shutil.copytree(house.folder / original / "state", home / "state")
    path = home / "state" / "state.json"
    state = decode(path.read_bytes(), UpdateState, "state")
    # Its own history with the server begins here; the original's counter would refuse it.
    fresh = msgspec.structs.replace(state, desired=None, counter=-1, phase=Phase.IDLE)
    path.write_bytes(encode(fresh))


def durable_steps(house: FleetHouse, original: str, version: str) -> int:
    """How many durable steps this update takes when nothing goes wrong."""
    clone(house, original, "counted")
    agent = house.start_agent("counted", kill_at=1_000_000)
    house.wait_for_end(house.roll_out(version, "counted"), "counted")
    agent.stop()
    return len(re.findall(r"^durable step", agent.output(), re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipes", "phase", "serving", "stride"),
    [(GOOD, "committed", "2", 3), (WORSE, "rolled_back", "1", 6)],
    ids=["good", "worse"],
)
def test_the_power_may_go_at_durable_steps(
    calm_house: FleetHouse,
    recipes: tuple[Recipe, ...],
    phase: str,
    serving: str,
    stride: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    house = calm_house
    install_first(house, "d0")
    house.agents.pop("d0").stop()
    house.publish("2", recipes)
    steps = durable_steps(house, "d0", "2")
    assert steps > 10
    cuts = list(range(1, steps + 1, stride))
    killed = 0
    for first in range(0, len(cuts), AT_ONCE):
        batch = [f"cut{cut}" for cut in cuts[first : first + AT_ONCE]]
        for name in batch:
            clone(house, "d0", name)
        rollout = house.roll_out("2", *batch)
        victims = {name: house.start_agent(name, kill_at=int(name[3:])) for name in batch}
        for name, victim in victims.items():
            killed += is_killed(house, rollout, name, victim)
            house.start_agent(name)
        for name in batch:
            assert house.wait_for_end(rollout, name) == phase, name
            house.wait_for_version(name, serving)
            house.agents.pop(name).stop()
    assert killed >= 0.9 * len(cuts)
    with capsys.disabled():
        print(f"\n{killed} of {steps} durable steps cut by SIGKILL: all {phase}")


def is_killed(house: FleetHouse, rollout: str, name: str, victim: Process) -> bool:
    """Wait for a victim's end by SIGKILL, or by the update's: runs differ by a few steps."""

    def ended() -> bool:
        return victim.child.poll() is not None or house.phase(rollout, name) in FINAL_PHASES

    wait_until(ended, 60.0, f"{name} to be killed")
    is_dead = victim.child.poll() is not None
    code = victim.stop()
    assert not is_dead or code == -signal.SIGKILL
    return is_dead


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["downloading", "golden", "trial"])
def test_everything_may_be_killed_during_an_update(house: FleetHouse, moment: str) -> None:
    """Broker, server, worker and agent in turn, each during an update of its own."""
    install_first(house, "d1")
    for number, victim in enumerate(("worker", "broker", "server", "agent"), start=2):
        version = str(number)
        house.publish(version, (Recipe("onnx", padding_bytes=8_000_000 + number),))
        rollout = house.roll_out(version, "d1")
        wait_until(
            lambda v=version: f"update {v}: {moment}" in house.agents["d1"].output(),
            60.0,
            f"{moment} of version {version}",
        )
        kill(house, victim)
        assert house.wait_for_end(rollout, "d1") == "committed", victim
        house.wait_for_version("d1", version)


def kill(house: FleetHouse, victim: str) -> None:
    if victim == "worker":
        os.kill(house.worker_pid("d1"), signal.SIGKILL)
    elif victim == "broker":
        house.broker.kill()
        house.broker.start()
    elif victim == "server":
        house.restart_server()
    else:
        house.agents.pop("d1").stop(signal.SIGKILL)
        house.start_agent("d1")
