"""Parts of the demo that can be tried without running it."""

from __future__ import annotations

from pathlib import Path

from agent.sense.sensors import Sensors
from edge_sdk.demo.board import Board


def test_the_agent_feels_what_the_board_is_told(tmp_path: Path) -> None:
    board = Board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4")
    sensors = Sensors(tmp_path)
    assert sensors.read().cpu_pressure_percent == 0.0
    board.press(cpu_percent=73.5)
    board.heat(celsius=81.25)
    sample = sensors.read()
    assert sample.cpu_pressure_percent == 73.5
    assert sample.cpu_pressure_source == "psi"
    assert sample.temperature_celsius == 81.25
    assert sample.memory_used_percent == 50.0
