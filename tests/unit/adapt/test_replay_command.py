"""``edge governor replay``: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_sdk.cli.governor import command
from edge_sdk.cli.governor_plot import deepest_signals
from tests.fakes.classifiers import Recipe, make_release
from tests.fakes.traces import BUSY, CALM, HOT, LATE, write_joint_traces, write_trace

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "trace.jsonl", [(20, CALM), (20, HOT), (60, CALM)])


def replay(*arguments: object, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(command, ["replay", *map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    document: dict[str, Any] = json.loads(done.stdout)
    return document["result"] if code == 0 else document["error"]


def test_it_prints_the_moves_and_writes_the_plot(trace: Path) -> None:
    done = CliRunner().invoke(command, ["replay", str(trace)])
    assert done.exit_code == 0, done.output
    for words in ("pi-7 (rpi4)", "wide", "half", "small", "pressure-thermal", "recovered", "Next:"):
        assert words in done.stdout
    picture = trace.with_name("trace.jsonl.png")
    assert picture.read_bytes().startswith(PNG)
    assert sorted(trace.parent.iterdir()) == [trace, picture]


def test_without_changes_it_does_what_the_device_did(trace: Path) -> None:
    result = replay(trace)
    assert result["seconds_at"] == pytest.approx(
        {"wide": 0.0, "half": 0.0, "small": 0.0} | result["recorded_seconds_at"]
    )
    assert [move["reason"] for move in result["moves"]] == ["pressure-thermal"] * 2 + [
        "recovered"
    ] * 2


def test_a_policy_can_be_changed_key_by_key(trace: Path) -> None:
    assert replay(trace, "--set", "dwell_down_s=100")["moves"] == []
    assert replay(trace, "--set", "temperature_celsius.enter=90")["moves"] == []
    saver = replay(trace, "--set", "energy_saver=always", "--set", "accuracy_floor=0.92")
    assert [move["target"] for move in saver["moves"]] == ["half"]
    assert saver["policy"]["accuracy_floor"] == 0.92


def test_a_profile_brings_its_own_temperatures(trace: Path) -> None:
    cooler = replay(trace, "--profile", "rpi4")["policy"]["temperature_celsius"]
    assert cooler["enter"] < 82.0


def test_a_ladder_comes_from_a_release(trace: Path, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", [Recipe("onnx", 16), Recipe("onnx", 8)])
    result = replay(trace, "--ladder", release.path, "--profile", "x86-generic")
    assert list(result["seconds_at"]) == [p.id for p in release.manifest.ladders["x86-generic"]]
    found = replay(trace, "--ladder", release.path.parent, "--profile", "rpi4", code=2)
    assert found["code"] == "usage.profile-not-in-release"


def test_samples_can_be_taken_as_they_are(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "late.jsonl", [(60, LATE)])
    with_feedback = replay(trace, "--set", "dwell_up_s=100")
    as_recorded = replay(trace, "--set", "dwell_up_s=100", "--as-recorded")
    assert len(as_recorded["moves"]) >= len(with_feedback["moves"]) > 0


def test_each_segment_can_be_chosen(trace: Path) -> None:
    write_trace(trace, [(10, CALM)])
    assert replay(trace)["samples"] == 10
    assert replay(trace, "--segment", 1)["samples"] == 100
    assert replay(trace, "--segment", 3, code=2)["code"] == "usage.no-such-segment"


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [
        (["--set", "dwell_up=5"], "config.unknown-key"),
        (["--set", "dwell_up_s=long"], "config.invalid"),
        (["--set", "dwell_up_s"], "usage.bad-assignment"),
        (["--set", "=" * 9], "usage.bad-assignment"),
        (["--set", "critical_celsius=20"], "config.governor-temperature"),
        (["--profile", "rpi44"], "profile.unknown"),
        (["--ladder", "nowhere"], "storage.unreadable"),
        (["--plot", "nowhere/plot.png"], "storage.write-failed"),
    ],
)
def test_what_it_refuses_has_a_code(trace: Path, arguments: list[str], slug: str) -> None:
    done = CliRunner().invoke(command, ["replay", str(trace), *arguments, "--json"])
    assert json.loads(done.stdout)["error"]["code"] == slug
    assert not list(trace.parent.glob("*.png")) and not list(trace.parent.glob(".*"))


def test_the_plot_shows_the_signals_that_came_into_their_band(tmp_path: Path) -> None:
    from agent.adapt.governor import Governor
    from agent.adapt.replay import replay as run
    from agent.adapt.trace import read_trace

    def shown(*plateaus: object) -> list[str]:
        path = tmp_path / "signals.jsonl"
        path.unlink(missing_ok=True)
        (segment,) = read_trace(write_trace(path, plateaus))
        return deepest_signals(run(segment, Governor(segment.start.policy, segment.start.ladder)))

    assert shown((10, CALM), (20, HOT)) == ["temperature_celsius"]
    assert shown((10, LATE), (10, HOT))[0] == "deadline_miss_share"
    assert len(shown((10, CALM))) == 1, "the deepest stands for all where nothing happened"


def test_traces_of_several_pipelines_are_replayed_together(tmp_path: Path) -> None:
    paths = write_joint_traces(tmp_path, [(6, CALM, CALM), (8, BUSY, CALM)])
    door, yard = replay(*paths, "--plot", tmp_path / "both.png")["pipelines"]
    assert (door["pipeline"], yard["pipeline"]) == ("door", "yard")
    assert [move["reason"] for move in yard["moves"]] == ["priority"]
    assert yard["moves"][0]["at_s"] < door["moves"][0]["at_s"]
    pictures = [tmp_path / "both-door.png", tmp_path / "both-yard.png"]
    assert [Path(one["plot"]) for one in (door, yard)] == pictures
    assert all(picture.read_bytes().startswith(PNG) for picture in pictures)


def test_traces_of_other_devices_or_times_are_not_replayed_together(tmp_path: Path) -> None:
    paths = write_joint_traces(tmp_path, [(10, CALM, CALM)])
    text = paths[0].read_text()
    other = tmp_path / "other.jsonl"
    for pattern, instead in (('"device_id":"pi-7"', '"device_id":"pi-8"'), ('"t":1', '"t":9')):
        assert pattern in text
        other.write_text(text.replace(pattern, instead))
        assert replay(other, paths[1], code=2)["code"] == "usage.traces-apart"
