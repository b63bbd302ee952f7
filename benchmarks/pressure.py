"""Bar: under stress the governor keeps deadlines, at a cost in accuracy that is printed.

A real worker serves labelled frames at a fixed rate while its processor is taken away by a quota
(4 ms period), by busy neighbours on its core, or by the heat it makes itself, or its memory by a
neighbour that grows in the same memory-limited control group until the kernel ends what does not
fit. Each run is calm, pressed, calm again; beside the governor stand all fixed points. A frame is
missed when it came later than the objective, or was due and never came.

    python benchmarks/pressure.py --conversion FOLDER --memory-conversion LARGE [--json] [--check]

FOLDER is what these two commands leave (minutes, once); ``Quick`` instead of ``Pressed`` for a
short look, with ``--quick``. LARGE is the same from ``Large``; without it the memory scenario is
left out:

    edge model train benchmarks/pressure_task.py:Pressed -o pressed.pt
    edge model convert benchmarks/pressure_task.py:Pressed -w pressed.pt -p x86-generic \\
        --schemes fp32 --format onnx --max-drop 0.5 -o FOLDER
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where converters.py hides the package.
sys.path[:] = [
    str(ROOT),
    *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"),
]

import msgspec  # noqa: E402
import numpy as np  # noqa: E402

from agent.adapt.governor import Governor  # noqa: E402
from agent.adapt.ladder import rungs  # noqa: E402
from agent.adapt.policy import GovernorPolicy, fitted  # noqa: E402
from agent.config import PipelineConfig, SourceConfig  # noqa: E402
from agent.worker.handle import WorkerHandle  # noqa: E402
from agent.worker.protocol import Failed, SetPoint, Stats, WorkerSpec  # noqa: E402
from benchmarks.clothing import digit_images  # noqa: E402
from benchmarks.pressure_board import CpuGroup, Plant  # noqa: E402
from benchmarks.pressure_memory import MemoryGroup, plan  # noqa: E402
from benchmarks.pressure_run import Outcome, Run, Setting, Stress  # noqa: E402
from edge_sdk.bundle.release import create_release  # noqa: E402
from edge_sdk.contracts.base import encode  # noqa: E402
from edge_sdk.contracts.manifest import Manifest  # noqa: E402

PROFILE = "x86-generic"
MAX_MISS_RATIO = 0.1
TOP_UTILISATION = 0.30
"""Of one core, by the most accurate point in calm; sets the frame rate."""
OBJECTIVE_RATIO = 1.8
"""The objective as a multiple of the most accurate point's latency in calm."""
SCENARIOS = ("quota", "busy", "heat", "memory")


def frames_file(folder: Path, side_px: int) -> Path:
    """Labelled frames for the worker: (N, side, side, 3) uint8 B, G, R, shuffled."""
    images, labels = digit_images("test", side_px)
    order = np.random.default_rng(3).permutation(len(labels))
    path = folder / "frames.npz"
    names = np.array([f"class-{label}" for label in labels[order]])
    np.savez(path, frames=np.ascontiguousarray(images[order][..., ::-1]), labels=names)
    return path


def specification(
    manifest: Manifest, folder: Path, release: Path, fps: float, objective_ms: float = 0.0
) -> tuple[WorkerSpec, PipelineConfig]:
    """A worker on the release's ladder."""
    path = folder / "manifest.json"
    path.write_bytes(encode(manifest))
    side_px = manifest.ladders[PROFILE][0].height_px
    frames = folder / "frames.npz"
    source = SourceConfig(
        kind="frames",
        path=str(frames if frames.exists() else frames_file(folder, side_px)),
        fps=fps,
        loop=True,
    )
    pipeline = PipelineConfig(name="pressed", source=source, objective_ms=objective_ms)
    spec = WorkerSpec(
        mode="serve",
        manifest=str(path),
        blobs=str(release / "blobs"),
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
    ladder = tuple(
        dataclasses.replace(rung, memory_mib=mib - needs_mib[-1])
        for rung, mib in zip(setting.ladder, needs_mib, strict=True)
    )
    return dataclasses.replace(setting, memory=memory, ladder=ladder), Stress(
        "memory", neighbour=neighbour
    )


def stress_of(name: str) -> Stress:
    """A scenario."""
    return {
        "quota": Stress("quota", quota=0.25),
        "busy": Stress("busy", hogs=5),
        "heat": Stress("heat", ambient_kelvin=12.0),
        "memory": Stress("memory"),
    }[name]


def prepare(
    options: argparse.Namespace, conversion: Path, folder: Path, group: CpuGroup
) -> Setting:
    """Release, frames, rate and objective."""
    folder.mkdir(parents=True, exist_ok=True)
    release = folder / "release"
    manifest = create_release(conversion, release, name="pressed", version="1", whole=True)
    points = manifest.ladders[PROFILE]
    probe, _ = specification(manifest, folder, release, fps=40.0)
    calm_ms = calm_latencies_ms(probe, len(points), options.calm_s, options.worker_nice, group)
    spec, pipeline = specification(
        manifest,
        folder,
        release,
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


def recovery_allowed_s(setting: Setting, outcome: Outcome, heat: bool) -> float:
    """Dwell per rung, the filters' settling, and for heat the board's cooling."""
    policy = setting.policy
    settle_s = 5.0 * policy.time_constant_s + 3.0
    cooling_s = 3.0 * setting.plant.time_constant_s if heat else 0.0
    return outcome.lowest * (policy.dwell_up_s + 1.0) + settle_s + cooling_s


def row(outcome: Outcome, name: str) -> dict[str, Any]:
    """A run in figures."""
    pressed = outcome.pressed
    ordered = sorted(pressed.latencies_ms) or [0.0]
    return {
        "run": name,
        "missed_percent": round(100 * pressed.missed_share, 2),
        "calm_missed_percent": round(100 * outcome.calm.missed_share, 2),
        "p50_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
        "delivered_percent": round(100 * pressed.delivered / max(1.0, pressed.offered), 1),
        "accuracy_percent": round(100 * pressed.accuracy, 2),
        "calm_accuracy_percent": round(100 * outcome.calm.accuracy, 2),
        "recovered_s": None if outcome.recovered_s is None else round(outcome.recovered_s, 1),
        "lowest": outcome.lowest,
        "hottest_celsius": round(outcome.hottest_celsius, 1),
        "peak_rss_mib": outcome.peak_rss_mib,
        "killed": outcome.killed,
        "moves": [(round(at, 1), index, reason) for at, index, reason in outcome.moves],
    }


def scenario(
    stress: Stress, setting: Setting, group: CpuGroup, options: argparse.Namespace
) -> dict[str, Any]:
    """The governor and fixed points under one stress."""
    name, size = stress.name, len(setting.ladder)
    every = [0, size - 1] if options.quick else list(range(size))
    fixed = [int(n) for n in options.fixed.split(",")] if options.fixed else every
    governed = Run(setting, stress, None, f"{name}-governor").run(group)
    found = {"governor": row(governed, "governor")}
    print_row(found["governor"])
    for index in sorted({min(index, size - 1) for index in fixed}):
        label = f"fixed {setting.ladder[index].point}"
        outcome = Run(setting, stress, index, f"{name}-{index}").run(group)
        found[str(index)] = row(outcome, label)
        print_row(found[str(index)])
    allowed_s = recovery_allowed_s(setting, governed, heat=name == "heat")
    without, missed = found["0"]["missed_percent"], found["governor"]["missed_percent"]
    recovered_s = governed.recovered_s
    if options.plot is not None and governed.trace is not None:
        draw(governed.trace, options.plot / f"governor-{name}.png")
    return {
        "runs": found,
        "miss_ratio": round(missed / without, 4) if without else None,
        "accuracy_cost_points": round(
            found["0"]["calm_accuracy_percent"] - found["governor"]["accuracy_percent"], 2
        ),
        "recovery_allowed_s": round(allowed_s, 1),
        "missed_bar": not without or missed > MAX_MISS_RATIO * without,
        "late_recovery": recovered_s is None or recovered_s > allowed_s,
    }


def draw(trace: Path, path: Path) -> None:
    """The governed run as a plot."""
    from agent.adapt.replay import replay
    from agent.adapt.trace import read_trace
    from edge_sdk.cli.governor_plot import plot_replay

    (segment,) = read_trace(trace)
    steps = replay(segment, Governor(segment.start.policy, segment.start.ladder), feedback=False)
    plot_replay(steps, segment.start.ladder, segment.start.ladder, path)


def print_row(row: dict[str, Any]) -> None:
    recovered = (
        "" if row["recovered_s"] is None else f"  back at the top after {row['recovered_s']} s"
    )
    print(
        f"  {row['run']:36} missed {row['missed_percent']:6.2f} %  p50 {row['p50_ms']:7.2f} "
        f"p95 {row['p95_ms']:7.2f} ms  accuracy {row['accuracy_percent']:6.2f} %  "
        f"delivered {row['delivered_percent']:5.1f} %{recovered}"
        + (f"  killed {row['killed']} times" if row["killed"] else ""),
        file=sys.stderr,
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--conversion", type=Path, required=True, help="see above")
    parser.add_argument("--memory-conversion", type=Path, help="see above")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="short phases, two fixed points")
    parser.add_argument("--stress-s", type=float, default=60.0)
    parser.add_argument("--lead-s", type=float, default=8.0)
    parser.add_argument("--recovery-s", type=float, default=150.0, help="at most")
    parser.add_argument("--calm-s", type=float, default=3.0, help="to measure each point")
    parser.add_argument("--worker-nice", type=int, help="priority of the worker and the hogs")
    parser.add_argument("--fixed", help="fixed points to run, e.g. 0,3; default all")
    parser.add_argument("--plot", type=Path, help="folder for a plot per scenario")
    parser.add_argument("--keep", type=Path, help="folder for the traces")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    options = parser.parse_args()
    if options.quick:
        options.stress_s, options.lead_s, options.calm_s = 12.0, 4.0, 1.0
    return options


def main() -> int:
    options = parse()
    group, memory = CpuGroup(), MemoryGroup()
    results: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.keep or Path(scratch)
            setting = prepare(options, options.conversion, folder, group)
            head = about(setting)
            for name in options.scenarios.split(","):
                if lacking := lacks(name, options, group, memory):
                    print(f"{name}: skipped, {lacking}", file=sys.stderr)
                    continue
                print(name, file=sys.stderr)
                own, stress = setting, stress_of(name)
                if name == "memory":
                    large = prepare(options, options.memory_conversion, folder / name, group)
                    about(large)
                    own, stress = limited(large, memory)
                results[name] = scenario(stress, own, group, options)
    finally:
        group.close()
        memory.close()
    missed = [n for n, r in results.items() if r["missed_bar"] or r["late_recovery"]]
    report(options, {**head, "scenarios": results, "missed": missed})
    return 1 if options.check and (missed or not results) else 0


def about(setting: Setting) -> dict[str, Any]:
    """Ladder, rate and objective; told at once, since runs take minutes."""
    head = {
        "ladder": [(rung.point, rung.accuracy, round(rung.cost, 2)) for rung in setting.ladder],
        "fps": round(setting.pipeline.source.fps, 1),
        "objective_ms": round(setting.pipeline.objective_ms, 2),
    }
    print(json.dumps(head), file=sys.stderr)
    return head


def lacks(name: str, options: argparse.Namespace, group: CpuGroup, memory: MemoryGroup) -> str:
    """Why a scenario cannot run here; empty where it can."""
    if name == "memory":
        if options.memory_conversion is None:
            return "no --memory-conversion was given"
        return "" if memory.usable else "no memory limit can be set here"
    return "" if name == "busy" or group.usable else "no CPU quota can be set here"


def report(options: argparse.Namespace, document: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(document, indent=2))
        return
    for name, result in document["scenarios"].items():
        governed = result["runs"]["governor"]
        print(
            f"{name}: {governed['missed_percent']} % of frames missed with the governor, "
            f"{result['runs']['0']['missed_percent']} % without (ratio {result['miss_ratio']}, "
            f"bar {MAX_MISS_RATIO}); it cost {result['accuracy_cost_points']} points of accuracy; "
            f"back at the top after {governed['recovered_s']} s "
            f"(allowed {result['recovery_allowed_s']}): "
            f"{'missed' if name in document['missed'] else 'met'}"
        )


if __name__ == "__main__":
    sys.exit(main())
