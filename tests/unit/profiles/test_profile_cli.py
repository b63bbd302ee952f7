"""``edge profile`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_sdk.cli.profile import command
from tests.fakes.sysroot import write_sysroot

DATA = Path(__file__).parents[3] / "device_profiles/data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def result(*arguments: str):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["ok"]
    assert document["next"]
    return document["result"]


def test_list() -> None:
    listed = {entry["id"]: entry for entry in result("list")}
    assert listed["rpi4"]["calibrated"]
    assert not listed["x86-generic"]["calibrated"]
    text = run("list").stdout
    assert "rpi5" in text
    assert "uncalibrated" in text
    assert "Next:" in text


def test_show() -> None:
    shown = result("show", "rpi4")
    assert shown["soc"] == "Broadcom BCM2711"
    assert {row["precision"] for row in shown["cost"]} == {"fp32", "int8"}
    assert "Latency model" in run("show", "rpi4").stdout
    assert "no latency is predicted" in run("show", "x86-generic").stdout


def test_show_unknown() -> None:
    done = run("show", "rpi44", "--json")
    assert done.exit_code == 4
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "profile.unknown"
    assert "'rpi4'" in error["hint"]


def test_probe_of_another_root(tmp_path: Path) -> None:
    root = write_sysroot(tmp_path, model="Raspberry Pi 5 Model B Rev 1.0", part=0xD0B)
    found = result("probe", "--sysroot", str(root))
    assert found["profile"] == "rpi5"
    assert found["runtimes"] == {}, "this machine's runtimes say nothing about another root"
    assert "The device tree says" in run("probe", "--sysroot", str(root)).stdout


def test_probe_of_this_machine_lists_runtimes() -> None:
    assert "onnxruntime" in result("probe")["runtimes"]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.toml")), ids=lambda path: path.stem)
def test_validate_prints_the_errors_of_the_rows(path: Path) -> None:
    found = result("validate", str(path))
    assert found["valid"]
    assert all(row["error_percent"] > 0 for row in found["cost"])


def test_validate_needs_no_suffix(tmp_path: Path) -> None:
    copy = tmp_path / "profile"
    copy.write_bytes((DATA / "rpi4.toml").read_bytes())
    assert result("validate", str(copy))["id"] == "rpi4"


def test_validate_names_key_and_suggestion(tmp_path: Path) -> None:
    copy = tmp_path / "mine.toml"
    copy.write_text((DATA / "rpi4.toml").read_text().replace("usable_share", "usable"))
    done = run("validate", str(copy))
    assert done.exit_code == 4
    assert "unknown key 'usable' in memory" in done.stderr
    assert "usable_share" in done.stderr


def test_validate_missing_file() -> None:
    assert run("validate", "nothing.toml").exit_code == 4
