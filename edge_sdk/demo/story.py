"""The demo's steps, told as they happen."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_sdk.cli.output import Output
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.update import Phase
from edge_sdk.demo.burglar import forged_messages
from edge_sdk.demo.fleet import MEMBERS, STREAM_FPS, TENANT, Fleet, Stream
from edge_sdk.demo.plot import plot_governor
from edge_sdk.demo.processes import Processes, wait_for
from edge_sdk.demo.releases import FIRST, MISLABELLED, RELEASE, SECOND, Recipe, ReleaseFactory
from edge_sdk.demo.shell import PASSPHRASE, Shell
from edge_sdk.demo.watch import FleetWatch, Moment
from edge_sdk.errors import GateError

PRESSED = "laptop"
FORGED = "5"
"""The version that a burglar orders."""
ROLLOUT_LIMIT_S = 120.0
QUIET = frozenset({Phase.OFFERED, Phase.PREFLIGHT, Phase.RECONSTRUCTING, Phase.VERIFYING})
"""Phases too short to be worth a line each."""


@dataclass(slots=True)
class Proof:
    """What the demo has shown."""

    conversion: Conversion | None = None
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    """Stream accuracy by device and version."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why each device refused what a burglar ordered, as an error code."""
    ladder_visited: list[str] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "held_out_accuracy": c.task.reference_accuracy if (c := self.conversion) else None,
            "artifacts": len(c.artifacts) if c else 0,
            "profiles": sorted(c.ladders) if c else [],
            "rollouts": self.rollouts,
            "stream_accuracy": self.accuracy,
            "burglary": self.refused,
            "ladder_visited": self.ladder_visited,
            "seconds": round(self.seconds, 1),
        }


class Story:
    """Runs the demo.

    Args:
        folder: everything is written below it.
        task_file: the digits example.
        output: where the story is told.
    """

    def __init__(self, folder: Path, task_file: Path, output: Output) -> None:
        self._folder = folder
        self._output = output
        self._shell = Shell(output)
        self._silent = Shell(Output(as_json=True))
        profiles = tuple(member.profile for member in MEMBERS)
        self._factory = ReleaseFactory(folder, task_file, profiles)
        self._task_file = task_file
        self._started = time.monotonic()
        self.proof = Proof()

    def run(self) -> Proof:
        """All steps."""
        with (
            Processes(self._folder / "logs") as processes,
            ThreadPoolExecutor(1) as background,
            # Left before the pool: what it still has to do then fails at once.
            self._shell,
            self._silent,
        ):
            self._train_and_convert()
            later = {
                recipe.version: background.submit(self._prepare, recipe)
                for recipe in (SECOND, MISLABELLED)
            }
            fleet, watch = self._start_fleet(processes)
            try:
                self._tell_rollouts(fleet, watch, processes, later)
                self._break_in(fleet, watch, processes)
                self._press(fleet, watch, processes)
            finally:
                watch.close()
            self.proof.timeline = watch.moments
        self.proof.seconds = time.monotonic() - self._started
        return self.proof

    # --- 1, 2: the model ---

    def _train_and_convert(self) -> None:
        self._heading(1, "Train a small network on scikit-learn's handwritten digits")
        self._factory.train(FIRST, self._shell)
        self._heading(2, "Convert it to int8, fp16 and fp32, sized to five device profiles")
        conversion = self._factory.convert(FIRST, self._shell, every_profile=True)
        self.proof.conversion = conversion
        self._factory.pack(FIRST.version, self._shell)

    def _prepare(self, recipe: Recipe) -> None:
        """Train, convert and pack a later version, in the background."""
        self._factory.train(recipe, self._silent)
        self._factory.convert(recipe, self._silent, every_profile=False)
        self._factory.pack(recipe.version, self._silent)

    # --- 3, 4: the fleet ---

    def _start_fleet(self, processes: Processes) -> tuple[Fleet, FleetWatch]:
        self._heading(
            3, "Make keys, start a broker, the server and three agents; roll out version 1"
        )
        fleet = Fleet(self._folder, processes, self._shell)
        self._output.line(f"  (you are asked for a passphrase; the demo's is {PASSPHRASE!r})")
        self._factory.make_keys(fleet.data, self._shell)
        fleet.start_server()
        watch = FleetWatch(fleet.broker_port, TENANT, self._tell)
        stream = self._write_stream()
        for member in MEMBERS:
            config = fleet.enroll(member, self._factory.trust, stream)
            fleet.start_agent(member, config)
        wait_for(
            lambda: sum(1 for _, log in watch.devices() if log.state and log.state.online) == 3,
            60.0,
            "three agents to come online",
            processes,
        )
        self._output.line(f"  the fleet's page: {fleet.server_url}")
        return fleet, watch

    def _write_stream(self) -> Stream:
        """The held-out digits as a video, by the example's own script."""
        video = self._folder / "stream" / "digits.avi"
        script = self._task_file.parent / "digits_video.py"
        subprocess.run(
            [sys.executable, str(script), str(video), "--fps", str(STREAM_FPS)],
            check=True,
            timeout=120,
        )
        return Stream(video, video.with_suffix(".labels.json"))

    def _tell(self, moment: Moment) -> None:
        if moment.phase in QUIET:
            return
        self._output.line(
            f"  {moment.at_s:6.1f} s  {moment.device:<12} v{moment.version}  "
            f"{moment.phase.value:<11} {moment.detail}"
        )

    # --- 4, 5: four versions ---

    def _tell_rollouts(
        self,
        fleet: Fleet,
        watch: FleetWatch,
        processes: Processes,
        later: dict[str, Future[None]],
    ) -> None:
        self._roll_out(FIRST.version, Phase.COMMITTED, fleet, watch, processes)
        self._heading(4, "The agents read the labelled stream; accuracy per device")
        self._wait_for_frames(FIRST.version, 200, watch, processes)
        self._show_accuracy(FIRST.version, watch)
        self._heading(5, "Version 2 is better, 3 is damaged, 4 is badly trained")
        self._output.line("  version 2: trained longer")
        self._finish(later["2"], processes)
        self._roll_out("2", Phase.COMMITTED, fleet, watch, processes)
        self._wait_for_frames("2", 100, watch, processes)
        self._output.line("  version 3: wrong weights under a right signature")
        self._factory.damage(SECOND, "3")
        self._factory.pack("3", self._shell)
        self._roll_out("3", Phase.REJECTED, fleet, watch, processes)
        self._output.line("  version 4: its golden vectors agree with it, but it was taught wrong")
        self._finish(later["4"], processes)
        self._roll_out("4", Phase.ROLLED_BACK, fleet, watch, processes)
        self._expect_serving("2", watch, processes)
        self._show_accuracy("2", watch)

    def _finish(self, future: Future[None], processes: Processes) -> None:
        wait_for(future.done, 300.0, "the next version to be built", processes)
        future.result()

    def _roll_out(
        self,
        version: str,
        expected: Phase,
        fleet: Fleet,
        watch: FleetWatch,
        processes: Processes,
    ) -> None:
        self._factory.sign(version, self._shell)
        folder = self._factory.folder(version)
        self._shell.run("release", "publish", str(folder), *fleet.access)
        rollout = self._shell.run(
            *("rollout", "create", RELEASE, version, "--no-wait"),
            # Each device is to judge for itself; by default the first failure ends a rollout.
            *("--max-failures", str(len(MEMBERS) - 1), *fleet.access),
        )

        def ended() -> bool:
            return all(version in log.ends for _, log in watch.devices())

        wait_for(ended, ROLLOUT_LIMIT_S, f"version {version} to end on every device", processes)
        phases = {name: log.ends[version].value for name, log in watch.devices()}
        self.proof.rollouts.append({"id": rollout["id"], "version": version, "devices": phases})
        self._expect(version, phases, expected.value)

    def _expect(self, version: str, outcomes: dict[str, str], expected: str) -> None:
        wrong = {name: outcome for name, outcome in outcomes.items() if outcome != expected}
        if wrong:
            raise GateError(
                "demo-outcome",
                f"Version {version} should have ended as {expected}, but: {wrong}.",
                f"The agents' logs in {self._folder / 'logs'} say why.",
            )

    def _expect_serving(self, version: str, watch: FleetWatch, processes: Processes) -> None:
        wait_for(
            lambda: all(log.state and log.state.version == version for _, log in watch.devices()),
            30.0,
            f"every device to serve version {version} again",
            processes,
        )

    def _wait_for_frames(
        self, version: str, frames: int, watch: FleetWatch, processes: Processes
    ) -> None:
        def seen() -> bool:
            return all(
                version in log.scores and log.scores[version].labelled >= frames
                for _, log in watch.devices()
            )

        wait_for(seen, 60.0, f"{frames} labelled frames per device", processes)

    def _show_accuracy(self, version: str, watch: FleetWatch) -> None:
        rows = []
        for name, log in watch.devices():
            score = log.scores[version]
            runtime = log.state.runtime if log.state else ""
            rows.append((name, runtime, f"v{version}", score.labelled, f"{score.accuracy:.4f}"))
            self.proof.accuracy.setdefault(name, {})[version] = round(score.accuracy, 4)
        self._output.table("", ("device", "runtime", "version", "frames", "accuracy"), rows)

    # --- 6: a burglary ---

    def _break_in(self, fleet: Fleet, watch: FleetWatch, processes: Processes) -> None:
        self._heading(
            6, "A burglar takes every key the server has, and orders a release of their own"
        )
        orders = {name: log.order for name, log in watch.devices()}
        fleet_key, loot = fleet.data / "fleet.key", self._factory.folder("3")
        watch.publish(forged_messages(fleet_key, watch.topics, loot, FORGED, orders))

        def refused() -> bool:
            return all(FORGED in log.ends for _, log in watch.devices())

        wait_for(refused, 30.0, "every device to answer the burglar's order", processes)
        self.proof.refused = {name: log.last.code for name, log in watch.devices() if log.last}
        self._expect(FORGED, self.proof.refused, "trust.no-target")
        self._expect_serving("2", watch, processes)

    # --- 7: pressure ---

    def _press(self, fleet: Fleet, watch: FleetWatch, processes: Processes) -> None:
        self._heading(7, f"Press on {PRESSED}'s CPU: its governor steps down, and back up")
        log, board = watch.device(PRESSED), fleet.boards[PRESSED]
        begin = len(log.samples)

        def index() -> int:
            ladder = log.samples[-1].ladder if log.samples else None
            return ladder.index if ladder else 0

        size = next((s.ladder.size for s in reversed(log.samples) if s.ladder), 1)
        self._dwell(2.0, processes)
        board.press(cpu_percent=85.0)
        wait_for(lambda: index() == size - 1, 60.0, "the governor to reach the bottom", processes)
        self._dwell(1.5, processes)
        board.press(cpu_percent=3.0)
        wait_for(lambda: index() == 0, 90.0, "the governor to recover", processes)
        self._dwell(1.0, processes)
        self._show_ladder(log.samples[begin:])

    def _dwell(self, seconds: float, processes: Processes) -> None:
        until = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() >= until, seconds + 5.0, "a moment", processes)

    def _show_ladder(self, samples: list[Any]) -> None:
        conversion = self.proof.conversion
        profile = next(member.profile for member in MEMBERS if member.id == PRESSED)
        points = [point.id for point in conversion.ladders[profile]] if conversion else []
        visited: list[str] = []
        for sample in samples:
            if sample.ladder and (not visited or visited[-1] != sample.ladder.point):
                visited.append(sample.ladder.point)
                self._output.line(
                    f"  {sample.at - samples[0].at:6.1f} s  pressure {sample.cpu_pressure:5.1f} %  "
                    f"{sample.ladder.point}  ({sample.ladder.reason})"
                )
        self.proof.ladder_visited = visited
        plot_governor(samples, points, PRESSED, self._folder / "governor.png")

    # --- telling ---

    def _heading(self, number: int, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._output.line()
        self._output.line(f"{number}. {text}   [{elapsed:.0f} s]", style="bold")
