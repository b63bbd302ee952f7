"""Parts of the demo that can be tried without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.sense.sensors import Sensors
from edge_sdk.bundle.signing import save_key
from edge_sdk.cli.output import Output
from edge_sdk.demo.board import Board
from edge_sdk.demo.burglar import forged_messages
from edge_sdk.demo.fleet import free_port
from edge_sdk.demo.shell import Shell
from edge_sdk.errors import EdgeError, ProfileError
from tests.fakes.fleet import write_release
from tests.fakes.tuf_rig import rig_with
from tests.fakes.updating import DEVICE, FLEET_KEY, TOPICS, tiny_release


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


@pytest.mark.parametrize("named", [False, True], ids=["burglar", "publisher"])
def test_the_burglars_order_lacks_only_the_publishers_word(tmp_path: Path, named: bool) -> None:
    rig = rig_with(tmp_path / "device", tiny_release("1", size=3000))
    loot = tiny_release("3", size=3000)
    rig.publish(loot)
    rig.behaviours["5"] = rig.behaviours["3"]
    save_key(FLEET_KEY, tmp_path / "fleet.key")
    folder = write_release(loot, tmp_path / "loot")
    orders = {DEVICE.device_id: rig.wish}
    (chunk, envelope), (_, order) = forged_messages(
        tmp_path / "fleet.key", TOPICS, folder, "5", orders
    )
    rig.retain(chunk, envelope)
    if named:
        rig.repo.add("releases/digits/5", envelope)
        rig.put(rig.repo.files)
        rig.run_for(5)
    rig.want(order)
    rig.settle()
    assert rig.version == ("5" if named else "1")
    assert ("trust.no-target" in rig.codes) != named
