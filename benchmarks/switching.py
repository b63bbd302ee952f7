"""What a move along the ladder costs: bytes, the frame it happens at, and the frames meanwhile.

Four widths of one network are released for each runtime, in float and in int8:

* **bytes**: what a device fetches and keeps for all four widths, over the widest alone;
* **resident**: the real frame loop without pauses between frames moves to and fro between two
  points that are both in memory; what a switch adds to the time between two frames counts;
* **missing**: the frame loop at a paced stream moves to a point that must first be built from the
  widest and loaded; the slowest frame meanwhile is compared with the slowest of as many frames just
  before the request (medians over all switches, so that a busy machine meets both alike); without a
  bar, the same in an overloaded stream that has no pauses to load in;
* **building** a file beside reading and hashing a stored copy of it, and loading the runtime;
* **memory** of a worker process with one and with two points, built and stored.

Run ``python benchmarks/switching.py``; ``--quick`` for fewer rounds, ``--json`` for one document,
``--check`` to exit with 1 when a bar is missed. The last line is the figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where converters.py hides the package.
sys.path[:] = [
    str(ROOT),
    *(path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"),
]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from agent.pipelines.config import PipelineConfig, PublishConfig, SourceConfig  # noqa: E402
from agent.pipelines.pixels import Pixels, pick_pixels  # noqa: E402
from agent.sources.base import Frame  # noqa: E402
from agent.worker.handle import WorkerHandle  # noqa: E402
from agent.worker.options import ServeOptions  # noqa: E402
from agent.worker.points import Loaded, Points  # noqa: E402
from agent.worker.protocol import (  # noqa: E402
    Event,
    PointChanged,
    PointRefused,
    Ready,
    SetPoint,
    Start,
    Stats,
    Stop,
    WorkerSpec,
)
from agent.worker.serve import FrameLoop  # noqa: E402
from benchmarks.width_ladder import (  # noqa: E402
    KINDS,
    PROFILE,
    WIDTHS,
    LadderRelease,
    build_release,
    write_models,
)
from edge_sdk.bundle.blobs import BlobStore  # noqa: E402
from edge_sdk.bundle.needs import needed_refs  # noqa: E402
from edge_sdk.bundle.shelf import Shelf  # noqa: E402
from edge_sdk.contracts.telemetry import Decision  # noqa: E402
from edge_sdk.durable import DiskStorage  # noqa: E402
from edge_sdk.runtime.negotiate import open_engine  # noqa: E402

BARS = {"bytes": 1.10, "resident_added_ms": 1.0, "missing_delay": 1.05}
FPS = 25.0
FRAMES_BETWEEN = 12
"""Between two switches."""
FRAME_PX = 96
PATIENCE_S = 60.0


@dataclass
class Times:
    """When each frame was begun and ended, and which of them began on another point."""

    frames: list[tuple[float, float]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    """Number of the first frame after each request."""
    moved: list[int] = field(default_factory=list)
    """Number of the first frame on the new point."""
    load_ms: list[float] = field(default_factory=list)


class TimedPipeline:
    """A pipeline that notes when each frame begins and ends."""

    def __init__(self, pipeline: Any, times: Times) -> None:
        self._pipeline = pipeline
        self._times = times
        self.engine = pipeline.engine

    def process(self, frame: Frame) -> Decision:
        begun = time.perf_counter()
        decision: Decision = self._pipeline.process(frame)
        self._times.frames.append((begun, time.perf_counter()))
        return decision

    def close(self) -> None:
        self._pipeline.close()


class TimedPoints(Points):
    """The points of a release, timed."""

    times: Times

    def load(
        self, index: int, pixels: Pixels, before_open: Callable[[], None] = lambda: None
    ) -> Loaded:
        loaded = super().load(index, pixels, before_open)
        timed: Any = TimedPipeline(loaded.pipeline, self.times)
        return Loaded(index, timed, loaded.load_ms)


class Script:
    """The frame loop's channel: asks for the next point some frames after the last one came."""

    congested = False

    def __init__(self, times: Times, route: list[int]) -> None:
        self._times = times
        self._route = route
        self._due = 2 * FRAMES_BETWEEN
        self._asked = False

    def command(self, timeout_s: float = 0.0) -> SetPoint | Stop | None:
        if self._asked or len(self._times.frames) < self._due:
            return None
        self._asked = True
        if not self._route:
            return Stop()
        self._times.asked.append(len(self._times.frames))
        return SetPoint(index=self._route.pop(0))

    def send(self, event: Event) -> bool:
        if isinstance(event, PointRefused):
            raise RuntimeError(f"{event.code}: {event.cause}")
        if isinstance(event, PointChanged):
            self._times.moved.append(len(self._times.frames))
            self._times.load_ms.append(event.load_ms)
            self._due = len(self._times.frames) + 2 * FRAMES_BETWEEN
            self._asked = False
        return True


def drive(release: LadderRelease, frames: Path, route: list[int], fps: float) -> Times:
    """The real frame loop along a route of points."""
    times = Times()
    points = TimedPoints(release.manifest, release.blobs, PROFILE)
    points.times = times
    source = SourceConfig(kind="frames", path=str(frames), loop=True, fps=fps)
    pipeline = PipelineConfig(name="b", source=source, publish=PublishConfig(batch=4))
    options = ServeOptions(pipeline, start_point=0, hold=False, stats_interval_s=0.5)
    channel: Any = Script(times, list(route))
    FrameLoop(points, channel, options, pick_pixels()).run()
    return times


def resident(release: LadderRelease, frames: Path, rounds: int) -> dict[str, float]:
    """What a switch between two points in memory adds to the time between two frames."""
    times = drive(release, frames, [1, 0] * rounds, fps=0.0)
    gaps_ms = [
        (after[0] - before[1]) * 1e3
        for before, after in zip(times.frames[:-1], times.frames[1:], strict=True)
    ]
    # The first move loads its point; every later one finds it in memory.
    at = [number - 1 for number, load in zip(times.moved, times.load_ms, strict=True) if not load]
    usual = statistics.median(gaps_ms)
    added = sorted(max(0.0, gaps_ms[number] - usual) for number in at if number < len(gaps_ms))
    return {
        "switches": len(added),
        "added_ms": statistics.median(added),
        "added_p95_ms": added[int(0.95 * (len(added) - 1))],
        "usual_p95_ms": sorted(gaps_ms)[int(0.95 * (len(gaps_ms) - 1))] - usual,
    }


def missing(release: LadderRelease, frames: Path, rounds: int) -> dict[str, float]:
    """How much slower the slowest frame is while a missing point is built and loaded."""
    route = [1, 2, 3, 0] * rounds
    times = drive(release, frames, route, fps=FPS)
    took = [(end - begun) * 1e3 for begun, end in times.frames]
    slowest_before, slowest_during, meanwhile = [], [], []
    for asked, moved in zip(times.asked, times.moved, strict=True):
        count = max(1, moved - asked)
        before, during = took[asked - count : asked], took[asked : asked + count]
        slowest_before.append(max(before))
        slowest_during.append(max(during))
        meanwhile.append(moved - asked)
    return {
        "switches": len(meanwhile),
        "delay": statistics.median(slowest_during) / statistics.median(slowest_before),
        "frames_meanwhile": statistics.mean(meanwhile),
        "load_ms": statistics.median(times.load_ms),
        "frame_ms": statistics.median(took),
    }


def crowded(release: LadderRelease, frames: Path, rounds: int) -> float:
    """Milliseconds by which the slowest frame is slower when there is no pause to load in."""
    times = drive(release, frames, [1, 2, 3, 0] * rounds, fps=0.0)
    took = [(end - begun) * 1e3 for begun, end in times.frames]
    added = []
    for asked, moved in zip(times.asked, times.moved, strict=True):
        count = min(asked, max(1, moved - asked))
        added.append(max(took[asked:moved] or [0.0]) - max(took[asked - count : asked]))
    return statistics.median(added)


def building(packed: LadderRelease, whole: LadderRelease, rounds: int) -> list[dict[str, Any]]:
    """Fastest of some: building a file, reading a stored copy, opening it."""
    ladder = packed.manifest.ladders[PROFILE]
    stores = [BlobStore(release.blobs, DiskStorage()) for release in (packed, whole)]
    shelf = Shelf(stores[0], packed.manifest.derived)
    rows = []
    for width, point in zip(WIDTHS, ladder, strict=True):
        if not shelf.is_built(point.artifact):
            continue
        artifact = packed.manifest.artifacts[point.artifact]
        stored = stores[1].path(artifact.digest)
        rows.append(
            {
                "width": width,
                "kib": stored.stat().st_size / 1024,
                "build_ms": _fastest(lambda d=artifact.digest: _open_shelf(shelf, d), rounds),
                "stored_ms": _fastest(lambda d=artifact.digest: stores[1].verify(d), rounds),
                "open_ms": _fastest(
                    lambda p=stored, f=artifact.format: open_engine(p, format=f).close(), rounds
                ),
            }
        )
    return rows


def _open_shelf(shelf: Shelf, digest: str) -> None:
    with shelf.opened(digest):
        pass


def _fastest(work: Callable[[], None], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return min(took) * 1e3


def memory(release: LadderRelease, frames: Path) -> dict[str, float]:
    """Resident MiB of a real worker on its second point, and with both in memory."""
    source = SourceConfig(kind="frames", path=str(frames), loop=True, fps=FPS)
    spec = WorkerSpec(
        mode="serve",
        manifest=str(release.path),
        blobs=str(release.blobs),
        profile=PROFILE,
        pipeline=PipelineConfig(name="b", source=source),
        start_point=1,
        hold=True,
    )
    worker = WorkerHandle.spawn(spec)
    try:
        _await(worker, Ready)
        worker.send(Start())
        one = _steady(worker)
        worker.send(SetPoint(index=2))
        _await(worker, PointChanged)
        return {"one_mib": one, "two_mib": _steady(worker)}
    finally:
        worker.close()


def _steady(worker: WorkerHandle) -> float:
    return [_await(worker, Stats).rss_mib for _ in range(3)][-1]


def _await(worker: WorkerHandle, kind: type[Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for event in worker.poll():
            if isinstance(event, kind):
                return event
        time.sleep(0.005)
    raise RuntimeError(f"no {kind.__name__}: {worker.exit_reason}: {worker.output}")


def measure(kind: str, models: list[Path], folder: Path, frames: Path, quick: bool) -> Any:
    """Every figure of one kind."""
    name = kind.replace(" ", "-")
    packed = build_release(folder / f"{name}-packed", kind, models, whole=False)
    whole = build_release(folder / f"{name}-whole", kind, models, whole=True)
    sizes = {
        profile: sum(
            ref.size_bytes for ref in needed_refs(packed.manifest, packed.manifest.ladders[profile])
        )
        for profile in (PROFILE, "widest")
    }
    rounds = 4 if quick else 12
    return {
        "kind": kind,
        "bytes_widest": sizes["widest"],
        "bytes_share": sizes[PROFILE] / sizes["widest"],
        "bytes_share_whole": sum(path.stat().st_size for path in models) / sizes["widest"],
        "resident": resident(packed, frames, 2 * rounds),
        "missing": missing(packed, frames, rounds),
        "crowded_added_ms": crowded(packed, frames, max(1, rounds // 4)),
        "building": building(packed, whole, 2 * rounds),
        "memory_built": memory(packed, frames),
        "memory_stored": memory(whole, frames),
    }


def show(result: dict[str, Any]) -> None:
    """One kind's figures."""
    still, moved = result["resident"], result["missing"]
    print(f"\n{result['kind']}")
    print(
        f"  four widths {result['bytes_share']:.3f}x the widest's {result['bytes_widest']} bytes"
        f" (whole files: {result['bytes_share_whole']:.2f}x)"
    )
    print(
        f"  resident: {still['added_ms']:.3f} ms added at the switch, p95"
        f" {still['added_p95_ms']:.3f} ({still['switches']:.0f} switches; p95 of any other pause"
        f" between two frames {still['usual_p95_ms']:.3f})"
    )
    print(
        f"  missing: slowest frame meanwhile {moved['delay']:.3f}x"
        f" ({moved['switches']:.0f} switches, {moved['frame_ms']:.1f} ms frames, built and loaded"
        f" in {moved['load_ms']:.1f} ms)"
    )
    print(
        f"  missing, in a stream without pauses: {result['crowded_added_ms']:.1f} ms added to the"
        " slowest frame meanwhile"
    )
    for row in result["building"]:
        print(
            f"  w{row['width']:.2f} {row['kib']:6.0f} KiB: build and verify {row['build_ms']:.1f}"
            f" ms, verify a stored copy {row['stored_ms']:.1f}, open {row['open_ms']:.1f}"
        )
    built, stored = result["memory_built"], result["memory_stored"]
    print(
        f"  worker: one point {built['one_mib']:.1f} MiB, two {built['two_mib']:.1f}"
        f" (stored files: {stored['one_mib']:.1f}, {stored['two_mib']:.1f})"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag in ("--quick", "--json", "--check"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--models", type=Path, help="keep the converted models in this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        if options.json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        results = _measure_all(folder, tuple(options.kinds), options.models, options.quick)
        for result in results:
            show(result)
    worst = {
        "bytes": max(each["bytes_share"] for each in results),
        "resident_added_ms": max(each["resident"]["added_ms"] for each in results),
        "missing_delay": max(each["missing"]["delay"] for each in results),
    }
    missed = {name: figure for name, figure in worst.items() if figure > BARS[name]}
    if options.json:
        print(json.dumps({"results": results, "worst": worst, "bars": BARS}))
    else:
        print("\n" + ", ".join(f"{name} {worst[name]:.3f} (bar {BARS[name]})" for name in BARS))
    return 1 if options.check and missed else 0


def _measure_all(
    folder: Path, kinds: tuple[str, ...], kept: Path | None, quick: bool
) -> list[dict[str, Any]]:
    models = kept or folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    found = write_models(models, kinds)
    frames = folder / "frames.npz"
    images = np.random.default_rng(0).integers(0, 256, (64, FRAME_PX, FRAME_PX, 3), np.uint8)
    np.savez(frames, frames=images)
    return [measure(kind, found[kind], folder, frames, quick) for kind in kinds]


if __name__ == "__main__":
    sys.exit(main())
