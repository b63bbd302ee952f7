"""The governor in a real agent: heat moves a worker, a person pins it, the trace is replayed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.adapt.trace import read_trace
from agent.status import read_status
from edge_sdk.demo.board import Board
from edge_sdk.errors import LinkError
from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.house import LADDER, FleetHouse, wait_until
from tests.fakes.processes import edge_command

GOVERNOR = """
[governor]
time_constant_s = 0.3
dwell_down_s = 0.5
dwell_up_s = 1.0

[trace]
path = "governor.jsonl"
"""


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def agent_command(name: str, config: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "agent.cli.main", name, *arguments),
            *("--config", str(config), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)


def test_heat_moves_the_worker_a_pin_holds_it_and_the_trace_tells_it_again(
    house: FleetHouse,
) -> None:
    home = house.add_device("d1")
    board = Board(home / "board", "")
    config = home / "agent.toml"
    text = config.read_text().replace("[governor]\nenabled = false\n", GOVERNOR)
    config.write_text(
        text.replace('state_dir = "state"', 'sensors_root = "board"\nstate_dir = "state"')
    )
    house.start_agent("d1")
    house.publish("1")
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"

    def status() -> dict[str, Any]:
        try:
            return read_status(home / "run")
        except LinkError:
            return {}

    def stands(rung: int, reason: str) -> bool:
        ladder = status().get("telemetry", {}).get("ladder") or {}
        return (ladder.get("index"), ladder.get("reason")) == (rung, reason)

    board.heat(celsius=84.0)
    wait_until(lambda: stands(1, "pressure-thermal"), 60.0, "the step down")
    board.heat(celsius=45.0)
    wait_until(lambda: stands(0, "recovered"), 60.0, "the way back")

    names = status()["governor"]["ladder"]
    assert len(names) == len(LADDER)
    code, document = agent_command("pin", config, names[1])
    assert code == 0 and document["result"]["pin"] == 1
    wait_until(lambda: stands(1, "pinned"), 60.0, "the pin in telemetry")
    code, document = agent_command("pin", config, "no-such-point")
    assert code == 2 and document["error"]["code"] == "usage.unknown-point"
    assert status()["governor"]["pin"] == 1
    assert agent_command("pin", config, "auto")[0] == 0
    wait_until(lambda: stands(0, "recovered"), 60.0, "the end of the pin")

    code, document = agent_command("status", config)
    shown = document["result"]["governor"]
    assert set(shown["seconds_at"]) == set(names) and min(shown["seconds_at"].values()) > 0.0
    assert (
        shown["signals"]["temperature_celsius"]["value"]
        < shown["signals"]["temperature_celsius"]["leave"]
    )

    house.agents.pop("d1").stop(signal.SIGTERM)
    segments = read_trace(home / "governor.jsonl")
    assert {tick.index for segment in segments for tick in segment.ticks} == {0, 1}
    done = subprocess.run(
        edge_command(
            "governor", "replay", str(home / "governor.jsonl"), "--segment", "1", "--json"
        ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    replayed = json.loads(done.stdout)["result"]
    assert [move["reason"] for move in replayed["moves"]][:2] == ["pressure-thermal", "recovered"]
