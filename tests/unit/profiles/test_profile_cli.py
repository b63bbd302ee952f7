"""``edge profile`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_sdk.cli.profile import command
from tests.fakes.sysroot import write_sysroot

DATA = Path(__file__).parents[3] / "device_profiles/data"
NCNN = 'source = "Tencent/ncnn benchmark/README.md @a4d2ea1d4 (minimum of each row)"'


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


def changed(folder: Path, old: str, new: str, name: str = "rpi4") -> Path:
    """A shipped profile with something replaced everywhere."""
    text = (DATA / f"{name}.toml").read_text()
    assert old in text
    path = folder / "changed.toml"
    path.write_text(text.replace(old, new))
    return path


def test_validate_prints_the_leave_one_out_error_of_each_profile() -> None:
    found = {entry["id"]: entry for entry in result("validate")}
    assert {path.stem for path in DATA.glob("*.toml")} == set(found)
    for entry in found.values():
        assert (entry["mape_percent"] is not None) == entry["calibrated"]
        assert not entry["calibrated"] or entry["mape_percent"] <= 20
    text = run("validate", "rpi4", "tensor-g4").stdout
    assert f"leave-one-out MAPE of the profile: {found['rpi4']['mape_percent']:.1f} %" in text
    assert "uncalibrated: no latency is predicted" in text


def test_a_latency_model_beyond_the_bar_fails_validation(tmp_path: Path) -> None:
    path = changed(tmp_path, "error_percent = 19.6", "error_percent = 91.0")
    done = run("validate", str(path), "--json")
    assert done.exit_code == 3
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "gate.latency-model"
    assert "rpi4 by 4" in error["cause"]


def test_what_was_not_verified_is_shown(tmp_path: Path) -> None:
    (key,) = result("validate", "rpi3b-plus")["not_verified"]
    assert key == "memory.source"
    assert result("show", "rpi3b-plus")["not_verified"].keys() == {key}
    for command_name in ("show", "validate"):
        assert f"{key}: Raspberry Pi 3" in run(command_name, "rpi3b-plus").stdout
    path = changed(tmp_path, "; not verified here", "", "rpi3b-plus")
    assert result("validate", str(path))["not_verified"] == {}
    assert "not verified" not in run("validate", str(path)).stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (NCNN, 'source = " "', "source is empty"),
        ("usable_share = 0.5", "usable_share = nan", "usable_share"),
        ("bandwidth_gb_s = 12.8", "bandwidth_gb_s = inf", "not finite"),
        ("cores = 4", "cores = 0", "cores"),
        ("mhz = 1800", "mhz = -1", "mhz"),
        ('min_version = "2.1"', 'min_version = "2.1"\ncpu_fallback = false', "lists what it takes"),
    ],
)
def test_profiles_that_make_no_sense_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    done = run("validate", str(changed(tmp_path, old, new)), "--json")
    assert done.exit_code == 4, done.output
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "profile.invalid"
    assert said in error["cause"]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.toml")), ids=lambda path: path.stem)
def test_every_figure_of_a_shipped_board_has_a_source(path: Path) -> None:
    shown = result("show", str(path))
    assert shown["cpu_source"] or shown["family"] == "x86"
    assert shown["memory"]["source"]
    for unit in shown["accelerators"]:
        assert unit["source"] and all(limits["source"] for limits in unit["constraints"])
    assert all(entry["source"] for entry in (*shown["cost"], *shown["reference"]))
