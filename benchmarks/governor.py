"""What adapting costs: a governor's decision, and reading the sensors twice a second.

Both for a pipeline alone, and for several that an arbiter orders by priority. Run
``python benchmarks/governor.py``; ``--quick`` for fewer rounds, ``--json`` for one document,
``--check`` to exit with 1 when a bar is missed. Times are processor time of this process, so that
a busy machine does not distort them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.adapt.arbiter import Contender, arbitrate
from agent.adapt.governor import Governor
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.sense import PressureSample, Sensors
from agent.sense.processes import Processes

READS_PER_S = 2.0
BARS = {
    "decision_us": 50.0,
    "shared_decision_us": 50.0,
    "sensing_core_percent": 0.5,
    "shared_sensing_core_percent": 0.5,
}
PIPELINES = 4
LADDER = [Rung(f"point-{i}", 0.97 - 0.01 * i, 20.0 / (i + 1)) for i in range(6)]


def per_call_us(call: Callable[[], object], calls: int, rounds: int) -> float:
    """Processor time per call, user and system: median of ``rounds`` rounds, in microseconds."""
    call()
    figures = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            call()
        figures.append((time.process_time() - start) / calls * 1e6)
    return statistics.median(figures)


CALM = PressureSample(
    cpu_pressure_percent=3.0,
    memory_pressure_percent=0.0,
    memory_available_mib=900.0,
    memory_total_mib=1900.0,
    temperature_celsius=55.0,
    cpu_percent=30.0,
    battery_percent=80.0,
    on_battery=True,
    own_cpu_percent=20.0,
    worker_rss_mib=90.0,
    deadline_miss_share=0.0,
    latency_share=0.3,
    queue_frames=0.0,
)
BUSY = PressureSample(
    cpu_pressure_percent=85.0,
    memory_pressure_percent=1.0,
    memory_available_mib=400.0,
    memory_total_mib=1900.0,
    temperature_celsius=70.0,
    cpu_percent=95.0,
    battery_percent=75.0,
    on_battery=True,
    own_cpu_percent=40.0,
    worker_rss_mib=95.0,
    deadline_miss_share=0.2,
    latency_share=1.2,
    queue_frames=2.0,
)
PHASE_TICKS = 120
"""Long enough for all pipelines to reach the bottom, and the top again."""


def decision() -> tuple[Callable[[], object], Callable[[], int]]:
    """``(one tick, how often it switched)`` under pressure that comes and goes."""
    governor = Governor(GovernorPolicy(dwell_down_s=1.0, dwell_up_s=2.0), LADDER)
    state, ticks, switches = governor.start(0.0), 0, 0

    def tick() -> None:
        nonlocal state, ticks, switches
        ticks += 1
        sample = BUSY if ticks // PHASE_TICKS % 2 else CALM
        state, made = governor.decide(state, sample, ticks / READS_PER_S)
        switches += made.changed

    return tick, lambda: switches


def shared_decision(count: int) -> tuple[Callable[[], object], Callable[[], int]]:
    """The same for ``count`` pipelines of different priority; one tick decides for all."""
    policy = GovernorPolicy(dwell_down_s=1.0, dwell_up_s=2.0)
    governors = [Governor(policy, LADDER) for _ in range(count)]
    states, ticks, switches = [governor.start(0.0) for governor in governors], 0, 0

    def tick() -> None:
        nonlocal states, ticks, switches
        ticks += 1
        sample = BUSY if ticks // PHASE_TICKS % 2 else CALM
        asked = zip(governors, states, range(count), strict=True)
        contenders = [Contender(one, state, sample, priority) for one, state, priority in asked]
        outcomes = arbitrate(contenders, ticks / READS_PER_S)
        states = [state for state, _ in outcomes]
        switches += sum(made.changed for _, made in outcomes)

    return tick, lambda: switches


def measure(quick: bool, root: Path) -> dict[str, float | str]:
    """All figures of this machine."""
    rounds, ticks, reads = (3, 2_000, 100) if quick else (9, 20_000, 500)
    tick, switched = decision()
    decision_us = per_call_us(tick, ticks, rounds)
    together, all_switched = shared_decision(PIPELINES)
    shared_us = per_call_us(together, ticks // PIPELINES, rounds) / PIPELINES
    if not (switched() and all_switched()):
        raise RuntimeError("the governor never moved, so nothing was measured")
    sensors = Sensors(root)
    read_us = per_call_us(sensors.read, reads, rounds)
    own, pids = Processes(), (os.getpid(), os.getppid())
    process_us = per_call_us(lambda: own.cpu_percent(pids), reads, rounds)
    sample = sensors.latest
    return {
        "decision_us": round(decision_us, 2),
        "shared_decision_us": round(shared_us, 2),
        "sensors_read_us": round(read_us, 1),
        "processes_read_us": round(process_us, 1),
        "sensing_core_percent": _core_percent(read_us + process_us),
        "shared_sensing_core_percent": _core_percent(read_us + PIPELINES * process_us),
        "pipelines": PIPELINES,
        "cpu_pressure_source": sample.cpu_pressure_source,
        "ladder_points": len(LADDER),
        "switches": switched(),
        "shared_switches": all_switched(),
    }


def _core_percent(us_per_read: float) -> float:
    return round(us_per_read * READS_PER_S / 1e4, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bar is missed")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where /proc and /sys are")
    options = parser.parse_args()
    figures = measure(options.quick, options.root)
    missed = [name for name, bar in BARS.items() if float(figures[name]) > bar]
    if options.json:
        print(json.dumps({"figures": figures, "bars": BARS, "missed": missed}, indent=2))
    else:
        for name, value in figures.items():
            bar = f"  (bar {BARS[name]:g})" if name in BARS else ""
            print(f"{name:24}{value}{bar}")
        print(
            f"{figures['decision_us']} us per decision alone, {figures['shared_decision_us']} each "
            f"of {PIPELINES}; {figures['sensing_core_percent']} and "
            f"{figures['shared_sensing_core_percent']} % of a core for sensing: "
            f"{'missed' if missed else 'within the bars'}"
        )
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
