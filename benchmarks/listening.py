"""What the benchmarks of sound share: releases that listen, and workers fed through a pipe."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.pipelines.listening import Listening
from agent.worker.handle import WorkerHandle
from agent.worker.points import Points, read_manifest
from agent.worker.protocol import Event, Failed, Ready, Start, WorkerSpec
from edge_sdk.audio.samples import Floats
from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Manifest
from edge_sdk.runtime.stream import StreamSession

RATE_HZ = 16000
BLOCK = 640
"""A microphone's period, as agent.sound.base.BLOCK_S asks for."""
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Release:
    """A release as it lies on a device."""

    manifest: Path
    blobs: Path
    profile: str

    def points(self) -> Points:
        """Its ladder."""
        return Points(read_manifest(self.manifest), self.blobs, self.profile, threads=1)

    def listening(self, index: int) -> Listening:
        """A network in this process."""
        points = self.points()
        sound = points.manifest.task.sound
        if sound is None:
            raise SystemExit(f"{self.manifest} does not listen.")
        _, artifact, engine = points.open(index)
        states = artifact.states
        return Listening(StreamSession(engine, artifact.inputs, artifact.outputs, states), sound)


def release_of(folder: Path, scratch: Path, profile: str = "x86-generic") -> Release:
    """A conversion as a release that a worker can serve."""
    path = folder / "conversion.json"
    if not path.is_file():
        raise SystemExit(
            f"There is no conversion {folder}; make one: see examples/keywords/task.py."
        )
    found = decode(path.read_bytes(), Conversion, str(path))
    blobs = scratch / "blobs"
    blobs.mkdir(parents=True)
    for digest, name in found.files.items():
        shutil.copyfile(folder / name, blobs / digest)
    manifest = Manifest(
        release=found.task.name,
        version="1",
        sequence=1,
        created=found.created,
        task=found.task,
        blobs={digest: blob_ref(blobs / digest) for digest in found.files},
        artifacts=found.artifacts,
        ladders=found.ladders,
    )
    (scratch / "manifest.json").write_bytes(encode(manifest))
    return Release(scratch / "manifest.json", blobs, profile)


@contextmanager
def fed_worker(
    release: Release, scratch: Path, point: int = 0
) -> Iterator[tuple[WorkerHandle, int]]:
    """A worker that is ready to listen to a pipe, and the pipe's end to write to."""
    path = scratch / "microphone"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    spec = WorkerSpec(
        mode="serve",
        manifest=str(release.manifest),
        blobs=str(release.blobs),
        profile=release.profile,
        pipeline=PipelineConfig(
            name="listens", source=SourceConfig(kind="pipe", path=str(path), rate_hz=RATE_HZ)
        ),
        start_point=point,
        threads=1,
        hold=True,
    )
    worker = WorkerHandle.spawn(spec)
    # Opened for both directions, so that neither end waits for the other.
    pipe = os.open(path, os.O_RDWR)
    try:
        wait_for(worker, Ready)
        worker.send(Start())
        yield worker, pipe
    finally:
        worker.close()
        os.close(pipe)


def wait_for(worker: WorkerHandle, kind: type[Event]) -> Event:
    """The next event of a kind."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for event in worker.poll():
            if isinstance(event, Failed):
                sys.exit(f"The worker failed: {event.cause}")
            if isinstance(event, kind):
                return event
        select.select([worker.fileno()], (), (), 0.05)
    sys.exit(f"The worker sent no {kind.__name__}: {worker.exit_reason} {worker.output}")


def play(
    worker: WorkerHandle, pipe: int, samples: Floats, hear: Callable[[Event, float], None]
) -> float:
    """Play sound at its own pace; events are handed over with the time they came.

    Returns:
        Monotonic time of the first sample.
    """
    stored = np.clip(samples * 2.0**15, -(2**15), 2**15 - 1).astype("<i2")
    began_s = time.monotonic()
    for start in range(0, len(stored), BLOCK):
        # A block is there once its last sample has been heard.
        due_s = began_s + (start + BLOCK) / RATE_HZ
        while (left_s := due_s - time.monotonic()) > 0:
            if select.select([worker.fileno()], (), (), left_s)[0]:
                now = time.monotonic()
                for event in worker.poll():
                    hear(event, now)
        os.write(pipe, stored[start : start + BLOCK].tobytes())
    return began_s


def percentile(values: Sequence[float], share: float) -> float:
    """Of at least one value."""
    return float(np.percentile(np.asarray(values), 100 * share))
