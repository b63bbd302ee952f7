"""What the pressure benchmark serves: a trained ladder, its frames, their rate, the objective."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from agent.adapt.ladder import rungs
from agent.adapt.policy import GovernorPolicy, fitted
from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.worker.handle import WorkerHandle
from agent.worker.protocol import Failed, SetPoint, Stats, WorkerSpec
from benchmarks import pressure_task
from benchmarks.pressure_board import CpuGroup, Plant
from benchmarks.pressure_memory import GROWTH_S, MemoryGroup, plan
from benchmarks.pressure_run import Setting, Stress
from edge_sdk.bundle.release import create_release
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT / "benchmarks" / "pressure_task.py"
PROFILE = "x86-generic"
RELEASE, FRAMES = "release", "frames.npz"
TOP_UTILISATION = 0.30
"""Of one core, by the most accurate point in calm; sets the frame rate."""
GROWN_S = 20.0
"""The neighbour that takes the memory has grown, and stays."""
OBJECTIVE_RATIO = 1.8
"""The objective as a multiple of the most accurate point's latency in calm."""


def converted(task: str, out: Path) -> Path:
    """The folder of a task's conversion; trained and converted where it is not there yet.

    Args:
        task: class in ``benchmarks/pressure_task.py``.
        out: folder that keeps weights and conversions.
    """
    weights, folder, ref = out / f"{task}.pt", out / task, f"{TASKS}:{task}"
    if not weights.is_file():
        _edge("train", ref, "--out", str(weights))
    if not (folder / "conversion.json").is_file():
        ladder = ("--profile", PROFILE, "--schemes", "fp32", "--format", "onnx")
        _edge("convert", ref, "--weights", str(weights), *ladder, "--out", str(folder))
    return folder


def _edge(*words: str) -> None:
    """The user's own command; what it tells goes to stderr."""
    command = [sys.executable, "-m", "edge_sdk.cli.main", "model", *words]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=ROOT)


def write_frames(path: Path, task: str, side_px: int) -> None:
    """Labelled frames for the worker: (N, side, side, 3) uint8 B, G, R, shuffled."""
    images, labels = getattr(pressure_task, task)().held_out(side_px)
    order = np.random.default_rng(3).permutation(len(labels))
    names = np.array([f"class-{label}" for label in labels[order]])
    np.savez(path, frames=np.ascontiguousarray(images[order][..., ::-1]), labels=names)


def specification(
    manifest: Manifest, folder: Path, fps: float, objective_ms: float = 0.0
) -> tuple[WorkerSpec, PipelineConfig]:
    """A worker on the ladder of the release in ``folder``, which has its frames, too."""
    path = folder / "manifest.json"
    path.write_bytes(encode(manifest))
    source = SourceConfig(kind="frames", path=str(folder / FRAMES), fps=fps, loop=True)
    pipeline = PipelineConfig(name="pressed", source=source, objective_ms=objective_ms)
    spec = WorkerSpec(
        mode="serve",
        manifest=str(path),
        blobs=str(folder / RELEASE / "blobs"),
        profile=PROFILE,
        pipeline=pipeline,
        threads=1,
    )
    return spec, pipeline


def calm_latencies_ms(
    spec: WorkerSpec, points: int, seconds: float, nice: int | None, group: CpuGroup
) -> list[float]:
    """Median latency of every point in this worker, unpressed."""
    worker = WorkerHandle.spawn(spec)
    if nice is not None:
        os.setpriority(os.PRIO_PGRP, worker.pid, nice)
    if group.usable:
        group.add(worker.pid)
    found: list[float] = []
    try:
        for index in range(points):
            worker.send(SetPoint(index=index))
            found.append(statistics.median(_latencies(worker, index, seconds)))
    finally:
        worker.close()
    return found


def _latencies(worker: WorkerHandle, index: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    deadline = time.monotonic() + 120.0
    enough = None
    while enough is None or time.monotonic() < enough:
        for event in worker.poll():
            if isinstance(event, Failed):
                raise RuntimeError(f"{event.code}: {event.cause}")
            if isinstance(event, Stats) and event.point == index and event.latencies_ms:
                latencies += event.latencies_ms
                enough = enough or time.monotonic() + seconds
        if time.monotonic() > deadline:
            raise RuntimeError(f"point {index} gave no frames: {worker.output}")
        time.sleep(0.05)
    return latencies


def points_mib(setting: Setting, memory: MemoryGroup) -> list[float]:
    """What a worker needs on each point, in calm."""
    found = []
    for index in range(len(setting.ladder)):
        worker = WorkerHandle.spawn(msgspec.structs.replace(setting.spec, start_point=index))
        memory.add(worker.pid)
        try:
            _latencies(worker, index, 2.0)
            found.append(memory.used_mib())
        finally:
            worker.close()
    return found


def limited(setting: Setting, memory: MemoryGroup) -> tuple[Setting, Stress]:
    """The setting under a memory limit, and the neighbour that presses in it."""
    needs_mib = points_mib(setting, memory)
    limit_mib, neighbour = plan(needs_mib[0], needs_mib[-1])
    memory.limit(limit_mib)
    about = {"needs_mib": [round(mib, 1) for mib in needs_mib], "limit_mib": round(limit_mib, 1)}
    print(json.dumps(about), file=sys.stderr)
    stress_s = max(setting.stress_s, GROWTH_S + GROWN_S)
    own = dataclasses.replace(setting, memory=memory, stress_s=stress_s)
    return own, Stress("memory", neighbour=neighbour)


def prepare(
    options: argparse.Namespace, conversion: Path, folder: Path, group: CpuGroup
) -> Setting:
    """Release, frames, rate and objective.

    Args:
        options: of the command line; lengths of the phases.
        conversion: whose ladder is served, as :func:`converted` left it.
        folder: for the release and the frames.
        group: of the worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = create_release(conversion, folder / RELEASE, name="pressed", version="1", whole=True)
    points = manifest.ladders[PROFILE]
    write_frames(folder / FRAMES, conversion.name, points[0].height_px)
    probe, _ = specification(manifest, folder, fps=40.0)
    calm_ms = calm_latencies_ms(probe, len(points), options.calm_s, options.worker_nice, group)
    spec, pipeline = specification(
        manifest,
        folder,
        fps=1000.0 * TOP_UTILISATION / calm_ms[0],
        objective_ms=OBJECTIVE_RATIO * calm_ms[0],
    )
    ladder = tuple(
        dataclasses.replace(rung, cost=ms) for rung, ms in zip(rungs(points), calm_ms, strict=True)
    )
    # Heat: the top rung settles 2 K above the throttle point in warm surroundings.
    kelvin_per_core = 24.0 / TOP_UTILISATION
    ambient = 85.0 + 2.0 - 12.0 - 24.0
    return Setting(
        spec=spec,
        ladder=ladder,
        pipeline=pipeline,
        policy=fitted(GovernorPolicy(), None),
        lead_s=options.lead_s,
        stress_s=options.stress_s,
        recovery_s=options.recovery_s,
        worker_nice=options.worker_nice,
        folder=folder,
        plant=Plant(ambient, kelvin_per_core, 12.0, ambient + 24.0),
        slowed_share=0.25,
    )
