"""One run of the pressure benchmark: a real worker on a real ladder, calm, pressed, calm again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.adapt.gate import MemoryRule
from agent.adapt.ladder import Rung
from agent.adapt.policy import GovernorPolicy
from agent.adapt.steering import Steering
from agent.adapt.trace import TraceConfig, TraceFile
from agent.adapt.workload import Killings, OwnUse, Recent, with_workload
from agent.pipelines.config import PipelineConfig
from agent.sense import Sensors
from agent.sense.processes import Processes
from agent.supervisor import ALARM_S, SENSE_S
from agent.worker.handle import WorkerHandle
from agent.worker.ports import Patience
from agent.worker.protocol import (
    AllowCascade,
    Failed,
    PointChanged,
    Ready,
    SetPoint,
    Stats,
    WorkerSpec,
)
from benchmarks.pressure_board import CpuGroup, Hogs, Plant, PressureBoard, machine_meminfo
from benchmarks.pressure_memory import MemoryGroup, Neighbour

POLL_S = 0.02
START_S = 120.0


@dataclass
class Phase:
    """Counts of one phase."""

    seconds: float = 0.0
    offered: float = 0.0
    """Frames that were due."""
    delivered: int = 0
    on_time: int = 0
    correct: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def missed_share(self) -> float:
        """Frames that were due and did not come, or came late."""
        return max(0.0, 1.0 - self.on_time / self.offered) if self.offered else 0.0

    @property
    def accuracy(self) -> float:
        """Of the frames that came."""
        return self.correct / self.delivered if self.delivered else 0.0


@dataclass(frozen=True)
class Stress:
    """What presses; everything that is not None or zero, together."""

    name: str
    quota: float | None = None
    """Share of one core that is left."""
    hogs: int = 0
    ambient_kelvin: float = 0.0
    """The surroundings become so much warmer."""
    neighbour: Neighbour | None = None
    """Grows within the run's memory limit."""


@dataclass(frozen=True)
class Setting:
    """What all runs have in common."""

    spec: WorkerSpec
    ladder: tuple[Rung, ...]
    pipeline: PipelineConfig
    policy: GovernorPolicy
    lead_s: float
    stress_s: float
    recovery_s: float
    worker_nice: int | None
    folder: Path
    plant: Plant
    slowed_share: float
    """Share of one core that a board too hot has left."""
    memory: MemoryGroup | None = None
    """With its limit set; None for a run without one."""


@dataclass
class Outcome:
    """What came of a run."""

    calm: Phase = field(default_factory=Phase)
    pressed: Phase = field(default_factory=Phase)
    after: Phase = field(default_factory=Phase)
    recovered_s: float | None = None
    """From the end of the stress to the top of the ladder."""
    moves: list[tuple[float, int, str]] = field(default_factory=list)
    lowest: int = 0
    hottest_celsius: float = 0.0
    peak_rss_mib: float = 0.0
    killed: int = 0
    """Workers that the kernel ended for want of memory."""
    trace: Path | None = None


class Run:
    """One worker under one stress, governed or pinned to a rung."""

    def __init__(self, setting: Setting, stress: Stress, pin: int | None, name: str) -> None:
        self._setting = setting
        self._stress = stress
        self._pin = pin
        self._outcome = Outcome()
        self._plant = Plant(**vars(setting.plant))
        self._recent = Recent(setting.pipeline.objective_ms, 0.0)
        self._slowed = False
        self._rung = self._told = pin or 0
        self._killings = Killings()
        self._name = name
        self._memory = MemoryRule()
        self._neighbour: subprocess.Popen[bytes] | None = None
        self._restart_at = 0.0

    def run(self, group: CpuGroup) -> Outcome:
        """Everything; the worker has ended when this returns."""
        self._group = group if group.usable else None
        hogs = Hogs(self._stress.hogs, core=max(os.sched_getaffinity(0)))
        self._worker = self._spawn()
        try:
            self._wait_ready()
            self._place(hogs)
            self._steer(hogs)
        finally:
            hogs.stop()
            self._stop_neighbour()
            self._worker.close()
            if self._group:
                self._group.limit(None)
        return self._outcome

    def _spawn(self) -> WorkerHandle:
        setting = self._setting
        spec = msgspec.structs.replace(setting.spec, start_point=self._told)
        worker = WorkerHandle.spawn(spec)
        if setting.memory is not None:
            setting.memory.add(worker.pid)
        return worker

    def _revive(self, board: PressureBoard) -> None:
        """Start a killed worker again, as the agent does: with a pause that doubles."""
        if self._worker.alive:
            return
        if self._setting.memory is None:
            raise RuntimeError(f"the worker ended: {self._worker.output}")
        now, patience = time.monotonic(), Patience()
        if not self._restart_at:
            self._outcome.killed += 1
            self._killings.killed()
            pause_s = patience.backoff_s * 2 ** (self._outcome.killed - 1)
            self._restart_at = now + min(pause_s, patience.backoff_max_s)
        elif now >= self._restart_at:
            self._restart_at = 0.0
            self._worker.close()
            self._worker = self._spawn()
            self._recent = Recent(self._setting.pipeline.objective_ms, now)
            board.follow(self._worker.pid)

    def _stop_neighbour(self) -> None:
        if self._neighbour is not None:
            self._neighbour.kill()
            self._neighbour.wait()
            self._neighbour = None

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for event in self._worker.poll():
                if isinstance(event, Ready):
                    return
                if isinstance(event, Failed):
                    raise RuntimeError(f"{event.code}: {event.cause}")
            time.sleep(0.02)
        raise RuntimeError(f"the worker did not start: {self._worker.output}")

    def _place(self, hogs: Hogs) -> None:
        pid = self._worker.pid
        if self._setting.worker_nice is not None:
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PGRP, pid, self._setting.worker_nice)
        if self._stress.hogs:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {max(os.sched_getaffinity(0))})
        if self._group:
            self._group.add(pid)

    def _steer(self, hogs: Hogs) -> None:
        setting = self._setting
        queueing = self._stress.hogs > 0
        root, pid = setting.folder / self._name, self._worker.pid
        memory = setting.memory
        meminfo = machine_meminfo if memory is None else memory.meminfo
        board = PressureBoard(root, pid, self._group, queueing=queueing, meminfo=meminfo)
        board.update(self._plant.celsius, False, ())
        trace = setting.folder / f"{self._name}.jsonl"
        recorder = TraceFile(TraceConfig(path=str(trace)), self._name, "rpi4", time.time)
        steering = Steering(setting.policy, recorder if self._pin is None else None)
        steering.govern("release", lambda: setting.ladder, 0, time.monotonic())
        if self._pin is not None:
            steering.pin(self._pin)
        self._loop(board, Sensors(board.root), steering, hogs)
        steering.close()
        self._outcome.trace = trace if self._pin is None else None

    def _loop(self, board: PressureBoard, sensors: Sensors, steering: Steering, hogs: Hogs) -> None:
        setting, outcome = self._setting, self._outcome
        own = Processes()
        begun = before = time.monotonic()
        ends = begun + setting.lead_s, begun + setting.lead_s + setting.stress_s
        limit = ends[1] + (setting.recovery_s if self._pin is None else SENSE_S)
        stress_on, cpu_before = False, board.cpu_s()
        while (now := time.monotonic()) < limit:
            wanted = ends[0] <= now < ends[1]
            if wanted != stress_on:
                stress_on = wanted
                self._press(stress_on, hogs)
            phase = outcome.calm if now < ends[0] else outcome.pressed
            phase = outcome.after if now >= ends[1] else phase
            now = self._tick(phase, before)
            phase.seconds += now - before
            phase.offered += (now - before) * setting.pipeline.source.fps
            self._revive(board)
            cpu = board.cpu_s()
            self._warm(now - before, max(0.0, cpu - cpu_before) / (now - before))
            cpu_before, before = cpu, now
            board.update(self._plant.celsius, self._slowed, hogs.pids)
            self._decide(steering, sensors, own, now, begun)
            if now >= ends[1] and self._pin is None and self._rung == self._told == 0:
                outcome.recovered_s = now - ends[1]
                return

    def _tick(self, phase: Phase, before: float) -> float:
        """Wait as the supervisor does: for its period, or for a late frame. The time then."""
        while True:
            self._drain(phase)
            now = time.monotonic()
            waits = self._recent.alarmed or self._killings.waiting
            alarmed = waits and now >= before + ALARM_S
            if alarmed or now >= before + SENSE_S:
                return now
            time.sleep(POLL_S)

    def _press(self, on: bool, hogs: Hogs) -> None:
        stress = self._stress
        if stress.hogs:
            nice = self._setting.worker_nice
            if on:
                hogs.start(os.nice(0) if nice is None else nice, self._group)
            else:
                hogs.stop()
        if stress.neighbour is not None and self._setting.memory is not None:
            self._stop_neighbour()
            if on:
                self._neighbour = stress.neighbour.start(self._setting.memory)
        self._plant.ambient_celsius += stress.ambient_kelvin * (1 if on else -1)
        self._limit(stress.quota if on else None)

    def _warm(self, elapsed_s: float, cores: float) -> None:
        """Step the plant; a board at its throttle point slows down until it is 5 K cooler."""
        celsius = self._plant.step(elapsed_s, cores)
        self._outcome.hottest_celsius = max(self._outcome.hottest_celsius, celsius)
        slowed = celsius >= 85.0 or (self._slowed and celsius > 80.0)
        if slowed != self._slowed:
            self._slowed = slowed
            self._limit(self._setting.slowed_share if slowed else None)

    def _limit(self, share: float | None) -> None:
        if self._group:
            self._group.limit(share)

    def _decide(
        self, steering: Steering, sensors: Sensors, own: Processes, now: float, begun: float
    ) -> None:
        recent = self._recent.take(now)
        sensed = sensors.read()
        killed = self._killings.take(sensed.oom_kills)
        use = OwnUse(own.cpu_percent([self._worker.pid]), worker_killed=killed)
        sample = with_workload(sensed, recent, self._setting.pipeline, use)
        before, self._memory = self._memory, self._memory.after(self._setting.policy, sample, now)
        if self._memory.allowed != before.allowed and self._pin is None:
            self._worker.send(AllowCascade(on=self._memory.allowed))
        index = steering.decide(sample, now)
        if index is not None and steering.decision is not None:
            self._recent.told(index)
            self._told = index
            self._worker.send(SetPoint(index=index, alone=steering.decision.alone))
            self._outcome.moves.append((now - begun, index, steering.decision.reason))
            self._outcome.lowest = max(self._outcome.lowest, index)

    def _drain(self, phase: Phase) -> None:
        objective_ms = self._setting.pipeline.objective_ms
        for event in self._worker.poll():
            if isinstance(event, Ready):
                self._rung = event.point
            if isinstance(event, PointChanged):
                self._rung = event.index
                self._recent.stands()
            if not isinstance(event, Stats):
                continue
            phase.delivered += event.frames
            phase.correct += event.correct
            phase.latencies_ms += event.latencies_ms
            phase.on_time += sum(ms <= objective_ms for ms in event.latencies_ms)
            self._outcome.peak_rss_mib = max(self._outcome.peak_rss_mib, event.rss_mib)
            self._recent.add(event)
