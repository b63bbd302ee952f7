"""Parts of the demo that can be tried without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.sense.sensors import Sensors
from edge_sdk.cli.output import Output
from edge_sdk.demo.board import Board
from edge_sdk.demo.fleet import free_port
from edge_sdk.demo.shell import Shell
from edge_sdk.errors import EdgeError, ProfileError


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


def test_a_shell_that_is_left_kills_what_runs_and_starts_no_more() -> None:
    with Shell(Output(as_json=True)) as shell:
        running = shell.begin("broker", "run", "--port", str(free_port()))
        assert running.process.poll() is None
    assert running.process.poll() is not None
    with pytest.raises(EdgeError, match="not started"):
        shell.begin("profile", "list")
    for stream in (running.process.stdout, running.process.stderr):
        assert stream is not None
        stream.close()


def test_a_commands_error_keeps_its_family_and_hint() -> None:
    with Shell(Output(as_json=True)) as shell:
        assert len(shell.run("profile", "list")) >= 5
        with pytest.raises(ProfileError) as caught:
            shell.run("profile", "show", "rpi44")
    assert caught.value.exit_code == 4
    assert "rpi4" in caught.value.hint


def test_a_command_that_only_dies_is_told_as_such() -> None:
    with Shell(Output(as_json=True)) as shell, pytest.raises(EdgeError, match="step-failed"):
        shell.run("profile", "--help")
