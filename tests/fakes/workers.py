"""Running workers in tests: spawn, follow their events, and leave none behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.pipelines.config import PipelineConfig, PublishConfig, SourceConfig
from agent.worker.handle import WorkerHandle
from agent.worker.protocol import Event, WorkerSpec
from tests.fakes.classifiers import PROFILE, DeviceRelease, write_frames

PATIENCE_S = 60.0
"""For a loaded machine; a passing test waits for events, not for this."""


class Workers:
    """Spawns workers and follows their events; every one is gone at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handles: list[WorkerHandle] = []

    def spec(self, release: DeviceRelease, mode: str = "serve", **options: Any) -> WorkerSpec:
        """A specification; ``source`` options go to the source."""
        source = {"kind": "frames", "path": str(self.frames()), **options.pop("source", {})}
        pipeline = PipelineConfig(
            name="test",
            source=SourceConfig(**source),
            publish=PublishConfig(batch=options.pop("batch", 8)),
            objective_ms=options.pop("objective_ms", 0.0),
        )
        return WorkerSpec(
            mode=mode,
            manifest=str(release.path),
            blobs=str(release.blobs),
            profile=options.pop("profile", PROFILE),
            pipeline=pipeline,
            stats_interval_s=options.pop("stats_interval_s", 0.1),
            **options,
        )

    def frames(self, count: int = 40) -> Path:
        path = self._folder / f"frames-{count}.npz"
        return path if path.exists() else write_frames(path, count)

    def spawn(self, spec: WorkerSpec) -> WorkerHandle:
        handle = WorkerHandle.spawn(spec)
        self._handles.append(handle)
        return handle

    def close(self) -> None:
        for handle in self._handles:
            handle.close()


def collect(handle: WorkerHandle, until: Callable[[list[Event]], bool]) -> list[Event]:
    """Events up to the batch with which ``until`` holds."""
    events: list[Event] = []
    deadline = time.monotonic() + PATIENCE_S
    while not until(events):
        alive = handle.alive  # asked before, so that its last words are not missed
        new = handle.poll()
        events += new
        if until(events):
            break
        if (not alive and not new) or time.monotonic() > deadline:
            raise AssertionError(
                f"{handle.exit_reason}; events {events[-5:]}; output:\n{handle.output}"
            )
        time.sleep(0.005)
    return events


def has(kind: type) -> Callable[[list[Event]], bool]:
    """Whether an event of a kind has come."""
    return lambda events: any(isinstance(event, kind) for event in events)


def wait_exit(handle: WorkerHandle) -> int:
    """The exit status, once there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while (status := handle.exit_status) is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"still running; output:\n{handle.output}")
        handle.poll()
        time.sleep(0.005)
    return status
