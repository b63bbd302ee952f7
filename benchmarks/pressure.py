"""Bar: under stress the governor keeps deadlines, at a cost in accuracy that is printed.

A real worker serves labelled frames at a fixed rate while its processor is taken away by a quota
(4 ms period), by busy neighbours on its core, or by the heat it makes itself, or its memory by a
neighbour that grows in the same memory-limited control group until the kernel ends what does not
fit. Each run is calm, pressed, calm again; beside the governor stand all fixed points. A frame is
missed when it came later than the objective, or was due and never came.

    python benchmarks/pressure.py [--quick] [--json] [--check]

What it serves is trained and converted first, some ten minutes of one core, and kept in ``--out``
for the next time. ``--quick`` takes a small and hardly trained network and short phases, and leaves
the memory limit out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where converters.py hides the package.
sys.path[:] = [
    str(ROOT),
    *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"),
]

import numpy as np  # noqa: E402

from agent.adapt.governor import Governor  # noqa: E402
from benchmarks.pressure_board import CpuGroup  # noqa: E402
from benchmarks.pressure_memory import MemoryGroup  # noqa: E402
from benchmarks.pressure_run import Outcome, Run, Setting, Stress  # noqa: E402
from benchmarks.pressure_setting import FRAMES, converted, limited, prepare  # noqa: E402

MAX_MISS_RATIO = 0.1
STANDARD_ERRORS = 2.0
"""By which the best point of an honest ladder may seem worse than another."""
SCENARIOS = ("quota", "busy", "heat", "memory")


def stress_of(name: str) -> Stress:
    """A scenario."""
    return {
        "quota": Stress("quota", quota=0.25),
        "busy": Stress("busy", hogs=5),
        "heat": Stress("heat", ambient_kelvin=12.0),
        "memory": Stress("memory"),
    }[name]


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
            100 * setting.ladder[0].accuracy - found["governor"]["accuracy_percent"], 2
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


def print_row(row: dict[str, Any], file: TextIO = sys.stderr) -> None:
    recovered = (
        "" if row["recovered_s"] is None else f"  back at the top after {row['recovered_s']} s"
    )
    print(
        f"  {row['run']:36} missed {row['missed_percent']:6.2f} %  p50 {row['p50_ms']:7.2f} "
        f"p95 {row['p95_ms']:7.2f} ms  accuracy {row['accuracy_percent']:6.2f} %  "
        f"delivered {row['delivered_percent']:5.1f} %{recovered}"
        + (f"  killed {row['killed']} times" if row["killed"] else ""),
        file=file,
        flush=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "pressure", help="%(default)s")
    parser.add_argument("--scenarios", help=f"default {','.join(SCENARIOS)}")
    parser.add_argument("--quick", action="store_true", help="short phases, two fixed points")
    parser.add_argument("--stress-s", type=float, default=45.0)
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
    options.scenarios = (
        options.scenarios.split(",")
        if options.scenarios
        else SCENARIOS[: 3 if options.quick else 4]
    )
    if options.plot is not None:
        options.plot.mkdir(parents=True, exist_ok=True)
    return options


def main() -> int:
    options = parse()
    group, memory = CpuGroup(), MemoryGroup()
    results: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.keep or Path(scratch)
            task = "Quick" if options.quick else "Pressed"
            setting = prepare(options, converted(task, options.out), folder, group)
            heads = [about(task, setting)]
            for name in options.scenarios:
                if lacking := lacks(name, group, memory):
                    print(f"{name}: skipped, {lacking}", file=sys.stderr)
                    continue
                print(name, file=sys.stderr)
                own, stress = setting, stress_of(name)
                if name == "memory":
                    large = prepare(options, converted("Large", options.out), folder / name, group)
                    heads.append(about("Large", large))
                    own, stress = limited(large, memory)
                results[name] = scenario(stress, own, group, options)
    finally:
        group.close()
        memory.close()
    missed = [n for n, r in results.items() if r["missed_bar"] or r["late_recovery"]]
    if not options.quick:
        missed += [f"ladder {h['task']}" for h in heads if h["short_points"] > h["noise_points"]]
    report(options, {"ladders": heads, "scenarios": results, "missed": missed})
    return 1 if options.check and (missed or not results) else 0


def about(task: str, setting: Setting) -> dict[str, Any]:
    """Ladder, rate and objective; told at once, since runs take minutes."""
    scores = [100 * rung.accuracy for rung in setting.ladder]
    count = len(np.load(setting.folder / FRAMES)["labels"])
    variances = [share * (1 - share) / count for share in (scores[0] / 100, max(scores) / 100)]
    noise = STANDARD_ERRORS * sum(variances) ** 0.5
    head = {
        "task": task,
        "ladder": [
            (rung.point, round(score, 2), round(rung.cost, 2))
            for rung, score in zip(setting.ladder, scores, strict=True)
        ],
        "frames": count,
        "short_points": round(max(scores) - scores[0], 2),
        "noise_points": round(100 * noise, 2),
        "fps": round(setting.pipeline.source.fps, 1),
        "objective_ms": round(setting.pipeline.objective_ms, 2),
    }
    print(json.dumps(head), file=sys.stderr)
    return head


def lacks(name: str, group: CpuGroup, memory: MemoryGroup) -> str:
    """Why a scenario cannot run here; empty where it can."""
    if name == "memory":
        return "" if memory.usable else "no memory limit can be set here"
    return "" if name == "busy" or group.usable else "no CPU quota can be set here"


def report(options: argparse.Namespace, document: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(document, indent=2))
        return
    for head in document["ladders"]:
        points = ", ".join(f"{point} {score} % {ms} ms" for point, score, ms in head["ladder"])
        print(
            f"{head['task']}: {points}; {head['fps']} frames a second, {head['objective_ms']} ms; "
            f"the first is {head['short_points']} points short of the most accurate "
            f"(two standard errors of that, {head['frames']} frames: {head['noise_points']})"
        )
    for name, result in document["scenarios"].items():
        governed = result["runs"]["governor"]
        for one in result["runs"].values():
            print_row(one, sys.stdout)
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
