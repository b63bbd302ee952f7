"""Two pipelines in one real agent: a rollout reaches both, and the lesser one gives way first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.status import read_status
from edge_sdk.demo.board import Board
from edge_sdk.errors import LinkError
from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.house import FleetHouse, wait_until

GOVERNOR = """
[governor]
time_constant_s = 0.3
dwell_down_s = 0.5
dwell_up_s = 1.0

[trace]
path = "governor.jsonl"
"""
SECOND = """
[[pipeline]]
name = "door"
priority = 5
source = {{ kind = "frames", path = "{frames}", fps = 30.0, loop = true }}
"""


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def configure(house: FleetHouse, home: Path) -> None:
    config = home / "agent.toml"
    text = config.read_text().replace("[governor]\nenabled = false\n", GOVERNOR)
    text = text.replace('state_dir = "state"', 'sensors_root = "board"\nstate_dir = "state"')
    text = text.replace("[pipeline]", "[[pipeline]]")
    config.write_text(text + SECOND.format(frames=house.frames))


def pin(home: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "agent.cli.main", "pin", *arguments]
    done = subprocess.run(
        [*command, "--config", str(home / "agent.toml"), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)


def test_both_run_the_release_and_the_lesser_one_gives_way_first(house: FleetHouse) -> None:
    home = house.add_device("d1")
    board = Board(home / "board", "")
    configure(house, home)
    house.start_agent("d1")
    house.publish("1")
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
    seen: list[tuple[int, int]] = []

    def stand(door: int, camera: int) -> bool:
        try:
            status = read_status(home / "run")
        except LinkError:
            return False
        samples = status["telemetry"]["pipelines"]
        at = tuple((sample.get("ladder") or {}).get("index", 0) for sample in samples)
        if len(at) == 2 and at not in seen[-1:]:
            seen.append((at[0], at[1]))
        return at == (door, camera)

    board.heat(celsius=84.0)
    wait_until(lambda: stand(1, 1), 60.0, "both to step down")
    board.heat(celsius=45.0)
    wait_until(lambda: stand(0, 0), 60.0, "both to rise")
    # A sample may miss a step that lasted shorter than its interval, but none shows the reverse.
    down, up = seen[: seen.index((1, 1))], seen[seen.index((1, 1)) :]
    assert set(down) <= {(0, 0), (0, 1)} and set(up) <= {(1, 1), (0, 1), (0, 0)}

    status = read_status(home / "run")
    assert list(status["pipelines"]) == ["door", "camera"] and len(status["worker_pids"]) == 2
    telemetry = status["telemetry"]
    assert telemetry["pipeline"] == "door"
    assert telemetry["frames"] == sum(part["frames"] for part in telemetry["pipelines"]) > 0

    assert pin(home, "1", "--pipeline", "camera")[0] == 0
    wait_until(lambda: stand(0, 1), 30.0, "the pin of one")
    code, document = pin(home, "1", "--pipeline", "dor")
    assert code == 2 and document["error"]["code"] == "usage.unknown-pipeline"
    assert "door" in document["error"]["hint"]
    assert pin(home, "auto")[0] == 0
    wait_until(lambda: stand(0, 0), 30.0, "the end of the pin")

    # A second release replaces the first in both.
    house.publish("2")
    assert house.wait_for_end(house.roll_out("2", "d1"), "d1") == "committed"
    assert house.device("d1").version == "2"
    house.agents.pop("d1").stop()
    assert {path.name for path in home.glob("governor*")} >= {
        "governor-door.jsonl",
        "governor-camera.jsonl",
    }
