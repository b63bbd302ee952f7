"""The pressure benchmark's own parts: a short run with a real worker, and its pure arithmetic."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy, fitted
from agent.adapt.trace import read_trace
from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.worker.protocol import WorkerSpec
from benchmarks.pressure_board import CpuGroup, Plant
from benchmarks.pressure_memory import MemoryGroup, plan
from benchmarks.pressure_run import Phase, Run, Setting, Stress
from tests.fakes.classifiers import PROFILE, Recipe, make_release, write_frames
from tests.fakes.house import wait_until


def test_missed_are_late_frames_and_those_that_never_came() -> None:
    phase = Phase(seconds=2.0, offered=100.0, delivered=80, on_time=60, correct=72)
    assert phase.missed_share == pytest.approx(0.4) and phase.accuracy == 0.9
    assert Phase(offered=10.0, delivered=12, on_time=12).missed_share == 0.0
    assert Phase().missed_share == Phase().accuracy == 0.0


def test_the_plant_settles_where_its_heat_says() -> None:
    plant = Plant(40.0, 60.0, 5.0, 40.0)
    for _ in range(200):
        plant.step(0.5, cores=0.5)
    assert plant.celsius == pytest.approx(70.0, abs=0.1)


def test_a_short_run_serves_frames_heats_the_board_and_writes_a_trace(tmp_path: Path) -> None:
    release = make_release(tmp_path / "release", [Recipe("onnx", 16), Recipe("onnx", 8)])
    source = SourceConfig(
        kind="frames", path=str(write_frames(tmp_path / "f.npz")), fps=60.0, loop=True
    )
    pipeline = PipelineConfig(name="t", source=source, objective_ms=500.0)
    setting = Setting(
        spec=WorkerSpec(
            mode="serve",
            manifest=str(release.path),
            blobs=str(release.blobs),
            profile=PROFILE,
            pipeline=pipeline,
        ),
        ladder=(Rung("a", 1.0, 2.0), Rung("b", 0.9, 1.0)),
        pipeline=pipeline,
        policy=fitted(GovernorPolicy(), None),
        lead_s=1.0,
        stress_s=3.0,
        recovery_s=1.0,
        worker_nice=None,
        folder=tmp_path,
        plant=Plant(60.0, 10.0, 1.0, 60.0),
        slowed_share=0.9,
    )
    group = CpuGroup()
    try:
        outcome = Run(setting, Stress("heat", ambient_kelvin=60.0), None, "short").run(group)
    finally:
        group.close()
    assert outcome.pressed.delivered > 0 and outcome.pressed.accuracy == 1.0
    assert outcome.hottest_celsius > 95.0 and outcome.lowest == 1
    assert outcome.trace is not None
    (segment,) = read_trace(outcome.trace)
    assert {tick.index for tick in segment.ticks} == {0, 1}
    assert not Path(f"/sys/fs/cgroup/cpu/edge-pressure-{os.getpid()}").exists()


def test_the_cheapest_point_fits_beside_the_grown_neighbour_and_the_best_does_not() -> None:
    limit_mib, neighbour = plan(top_mib=90.0, bottom_mib=70.0)
    assert 70.0 + neighbour.last_mib < limit_mib < 90.0 + neighbour.last_mib
    assert 90.0 + neighbour.first_mib == pytest.approx(0.88 * limit_mib)


def test_a_memory_group_is_a_boards_memory() -> None:
    group = MemoryGroup()
    try:
        if not group.usable:
            pytest.skip("this user may not create a memory control group here")
        group.limit(64.0)
        process = neighbour_of(group)
        try:
            wait_until(lambda: group.used_mib() > 20.0, 20.0, "the neighbour to grow")
            lines = dict(line.split(": ") for line in group.meminfo().splitlines())
        finally:
            process.kill()
            process.wait()
        total, free = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        assert total == 64 * 1024 and 0 < free < 44 * 1024
    finally:
        group.close()


def neighbour_of(group: MemoryGroup) -> subprocess.Popen[bytes]:
    return plan(top_mib=90.0, bottom_mib=70.0)[1].start(group)
