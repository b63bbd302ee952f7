"""Cascades of a real conversion: what is tried, written, refused, and carried into a release."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from converters.bench import read_conversion
from converters.cascade.calibrate import Terms
from converters.cascade.points import add_cascades
from converters.convert import Outcome
from converters.loading import load_task
from converters.publish import CONVERSION_NAME
from edge_sdk.bundle.release import create_release
from edge_sdk.cli.model import command
from edge_sdk.contracts.base import encode
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import GateError, TaskError

PROFILE = "x86-generic"
TERMS = Terms(tolerance=0.1)


def costed(source: Path, folder: Path, full_ms: float, other_ms: float) -> Path:
    """A copy of a conversion with one ladder of two resolutions, which cost what a test needs."""
    shutil.copytree(source, folder)
    conversion = read_conversion(folder)
    files = {
        artifact.height_px: artifact
        for artifact in conversion.artifacts.values()
        if (artifact.scheme, artifact.format) == ("fp32", "onnx")
    }
    template = next(point for ladder in conversion.ladders.values() for point in ladder)
    ladder = tuple(
        replace(
            template,
            id=f"{side}px",
            artifact=files[side].digest,
            runtime="onnxruntime",
            scheme="fp32",
            height_px=side,
            width_px=side,
            predicted=None,
            host_latency_ms=cost_ms,
        )
        for side, cost_ms in ((24, full_ms), (12, other_ms))
    )
    data = encode(replace(conversion, ladders={PROFILE: ladder}))
    (folder / CONVERSION_NAME).write_bytes(data)
    return folder


@pytest.fixture
def folder(tiny_conversion: Outcome, tmp_path: Path) -> Path:
    return costed(tiny_conversion.out, tmp_path / "paying", 10.0, 2.0)


def test_a_cascade_that_pays_travels_into_the_release(
    tiny: str, folder: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    found = add_cascades(load_task(tiny), folder, TERMS, progress=told.append)
    full, low = read_conversion(folder).ladders[PROFILE]
    assert low.cascade is None and full.cascade is not None
    own, verdict = full.cascade, found.chosen[PROFILE][full.id].verdict
    assert (own.first, own.samples, own.alone_ms) == (low.id, 60, 10.0)
    assert own.mean_ms == pytest.approx(2.0 + own.escalated * 10.0)
    assert verdict.saving >= TERMS.least_saving and own.disagreement <= TERMS.tolerance
    assert len(told) == 2
    manifest = create_release(folder, tmp_path / "release", name="tiny", version="1")
    assert manifest.ladders[PROFILE][0].cascade == own


def test_no_cascade_changes_nothing(tiny: str, tiny_conversion: Outcome, tmp_path: Path) -> None:
    folder = costed(tiny_conversion.out, tmp_path / "dear", 10.0, 9.9)
    before = (folder / CONVERSION_NAME).read_bytes()
    with pytest.raises(GateError, match="too little to save") as caught:
        add_cascades(load_task(tiny), folder, TERMS)
    assert caught.value.code == "gate.no-cascade"
    assert (folder / CONVERSION_NAME).read_bytes() == before


def test_calibrating_again_replaces_what_was_there(tiny: str, folder: Path) -> None:
    add_cascades(load_task(tiny), folder, TERMS)
    once = (folder / CONVERSION_NAME).read_bytes()
    add_cascades(load_task(tiny), folder, TERMS)
    assert (folder / CONVERSION_NAME).read_bytes() == once


def test_two_resolutions_must_show_the_same_images(tiny: str, folder: Path) -> None:
    path, _, _ = tiny.rpartition(":")
    other = Path(path).with_name("unpaired_task.py")
    other.write_text(
        Path(path).read_text() + "\n\nclass Unpaired(Tiny):\n"
        "    def evaluation(self, height, width):\n"
        "        images, labels = bars(60, height, width, 2)\n"
        "        yield (images, labels) if height == 24 else (images.flip(0), labels.flip(0))\n"
    )
    with pytest.raises(TaskError, match="same images") as caught:
        add_cascades(load_task(f"{other}:Unpaired"), folder, TERMS)
    assert caught.value.code == "task.unpaired-samples"


class PowerCutError(Exception):
    """The power is gone."""


@pytest.mark.parametrize("at", ["write", "half", "sync", "rename", "done"])
def test_a_power_cut_leaves_one_of_two_good_files(tiny: str, folder: Path, at: str) -> None:
    class Cut(DiskStorage):
        def step(self, name: str, path: Path) -> None:
            if name == at:
                raise PowerCutError

    before = read_conversion(folder)
    with contextlib.suppress(PowerCutError):
        add_cascades(load_task(tiny), folder, TERMS, storage=Cut())
    after = read_conversion(folder)
    assert after == before or after.ladders[PROFILE][0].cascade is not None


def test_the_command_tells_what_it_wrote(tiny: str, folder: Path) -> None:
    arguments = ["cascade", tiny, str(folder), "--tolerance", "0.1", "--json"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (name,) = document["result"]["cascades"][PROFILE]
    assert name == read_conversion(folder).ladders[PROFILE][0].id
    assert "edge release create" in document["next"][0]
    bad = CliRunner().invoke(command, ["cascade", tiny, str(folder), "--tolerance", "7", "--json"])
    assert bad.exit_code == 2 and "usage.bad-share" in bad.output
