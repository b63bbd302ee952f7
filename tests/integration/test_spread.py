"""A models x profiles matrix on a real local Ray instance, and on processes: the same answers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from converters.fit.estimate import Choices
from converters.fit.run import FitOptions
from converters.fit.search import Budget
from converters.spread import Cell, Row, run_matrix
from edge_sdk.errors import UsageError
from tests.unit.converters.conftest import TINY, variant

OPTIONS = FitOptions(
    budget=Budget(latency_ms=100.0),
    choices=Choices(schemes=("static_wi8_ai8",), runtimes=("onnxruntime",), threads=(1,)),
    resolutions=((12, 12),),
)
NEEDS_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray (edge-sdk[ray]) is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrix")
    (path / "one.py").write_text(variant(TINY))
    broken = "def calibration(self, height, width):\n    return iter(())"
    (path / "two.py").write_text(variant(TINY, code=broken))
    return path


def cells(folder: Path, out: str) -> list[Cell]:
    return [
        Cell(
            task=f"{folder / name}.py:Variant",
            profiles=("rpi4", "rpi5"),
            out=folder / out / name,
            options=OPTIONS,
            cache=folder / "cache",
        )
        for name in ("one", "two")
    ]


def check(rows: list[Row], folder: Path, out: str) -> list[str]:
    good, bad = rows
    assert good.error is None
    assert good.unfit == ()
    assert good.result is not None
    assert (folder / out / "one" / "fit.json").is_file()
    assert bad.result is None
    assert bad.error is not None
    assert bad.error.code == "task.no-data"
    assert not (folder / out / "two").exists()
    return [
        item["artifact"]
        for profile in good.result["profiles"].values()
        for item in profile["ladder"]
    ]


@pytest.mark.slow
@NEEDS_RAY
def test_ray_and_processes_agree_and_share_the_cache(folder: Path) -> None:
    here = run_matrix(cells(folder, "here"), workers=1)
    digests = check(here, folder, "here")
    said: list[str] = []
    there = run_matrix(cells(folder, "there"), ray="local", workers=2, progress=said.append)
    assert check(there, folder, "there") == digests
    assert len(said) == 2
    first, second = here[0].result, there[0].result
    assert first is not None
    assert second is not None
    assert first["passes"]["run"] > 5
    assert second["passes"]["run"] == 0
    import ray

    assert not ray.is_initialized()


def crashing(folder: Path, out: str) -> list[Cell]:
    """A task that kills its process, and one with an error of its own."""
    kills = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (folder / "kills.py").write_text(kills)
    cell = cells(folder, out)[1]
    return [replace(cell, task=f"{folder / 'kills.py'}:Task"), cell]


def test_a_search_that_is_killed_ends_no_other(folder: Path) -> None:
    said: list[str] = []
    rows = run_matrix(crashing(folder, "killed"), workers=2, progress=said.append)
    codes = [row.error.code for row in rows if row.error is not None]
    assert codes == ["conversion.native-crash", "task.no-data"]
    assert sorted(said) == ["kills.py:Task done", "two.py:Variant done"]


@pytest.mark.slow
@NEEDS_RAY
def test_a_ray_worker_that_is_killed_ends_no_other(folder: Path) -> None:
    rows = run_matrix(crashing(folder, "lost"), ray="local", workers=1)
    codes = [row.error.code for row in rows if row.error is not None]
    assert codes == ["conversion.child-failed", "task.no-data"]
    assert "kills.py:Task" in rows[0].error.cause
    left = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not [line for line in left if "raylet" in line or "gcs_server" in line]


@NEEDS_RAY
def test_a_cluster_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run_matrix(cells(folder, "nowhere"), ray="not an address")
    assert caught.value.code == "usage.ray-unreachable"
