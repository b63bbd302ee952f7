"""Made-up traces: a device that is calm, then pressed, then calm again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.adapt.governor import Governor
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.adapt.steering import Seat, Steering, decide_together
from agent.adapt.trace import TraceConfig, TraceFile
from agent.sense.sample import PressureSample

TICK_S = 0.5
LADDER = (Rung("wide", 0.95, 8.0), Rung("half", 0.93, 4.0), Rung("small", 0.90, 2.0))
POLICY = GovernorPolicy(time_constant_s=1.0, dwell_down_s=2.0, dwell_up_s=5.0)
CALM = PressureSample(
    cpu_pressure_percent=2.0,
    cpu_pressure_source="psi",
    memory_available_mib=600.0,
    memory_total_mib=1000.0,
    cpu_percent=20.0,
    own_cpu_percent=10.0,
    temperature_celsius=50.0,
    deadline_miss_share=0.0,
    latency_share=0.2,
    queue_frames=0.0,
)
LATE = msgspec.structs.replace(CALM, deadline_miss_share=0.6, latency_share=1.5, queue_frames=2.0)
BUSY = msgspec.structs.replace(LATE, cpu_pressure_percent=60.0)
"""Late because the processor is contended for."""
HOT = msgspec.structs.replace(CALM, temperature_celsius=84.0)


def write_trace(
    path: Path,
    plateaus: Sequence[tuple[int, PressureSample]] = ((20, CALM), (20, HOT), (40, CALM)),
    *,
    policy: GovernorPolicy = POLICY,
    ladder: Sequence[Rung] = LADDER,
    max_mib: float = 8.0,
) -> Path:
    """A trace as the agent writes it, ``(ticks, sample)`` after each other."""
    file = TraceFile(TraceConfig(path=str(path), max_mib=max_mib), "pi-7", "rpi4", lambda: 1e9)
    governor = Governor(policy, ladder)
    file.begin(governor.policy, governor.ladder)
    state, now = governor.start(100.0), 100.0
    for count, sample in plateaus:
        for _ in range(count):
            now += TICK_S
            state, decision = governor.decide(state, sample, now)
            file.add(now, sample, decision)
    file.close()
    return path


def write_joint_traces(
    folder: Path, plateaus: Sequence[tuple[int, PressureSample, PressureSample]]
) -> list[Path]:
    """Traces of two pipelines under one arbiter, ``(ticks, door's sample, yard's)``.

    The door comes first by priority, and is written second.
    """
    priorities = {"yard": 0, "door": 5}
    paths = [folder / f"governor-{name}.jsonl" for name in priorities]
    files = [
        TraceFile(
            TraceConfig(path=str(path)),
            "pi-7",
            "rpi4",
            lambda: 1e9,
            pipeline=name,
            priority=priority,
        )
        for path, (name, priority) in zip(paths, priorities.items(), strict=True)
    ]
    steerings = [Steering(POLICY, file) for file in files]
    now = 100.0
    for steering in steerings:
        steering.govern("release", lambda: LADDER, 0, now)
    for count, door, yard in plateaus:
        for _ in range(count):
            now += TICK_S
            samples = zip(steerings, priorities.values(), (yard, door), strict=True)
            decide_together([Seat(*seat) for seat in samples], now)
    for steering in steerings:
        steering.close()
    return paths
