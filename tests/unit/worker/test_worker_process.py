"""Workers as real processes: serving, changing points, testing a release, refusing bad ones."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from agent.worker.protocol import (
    Event,
    Failed,
    Finished,
    GoldenDone,
    GoldenProgress,
    PointChanged,
    PointRefused,
    Ready,
    Results,
    SetPoint,
    Start,
    Stats,
    Stop,
)
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.telemetry import Decision
from tests.fakes.classifiers import DeviceRelease, Recipe, colour_frames, make_release
from tests.fakes.workers import Workers, collect, has, wait_exit


def decisions(events: list[Event]) -> list[Decision]:
    return [d for event in events if isinstance(event, Results) for d in event.decisions]


def only(events: list[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("point", [0, 1, 2, 3])
def test_every_frame_is_decided_and_counted(
    workers: Workers, ladder: DeviceRelease, point: int
) -> None:
    handle = workers.spawn(workers.spec(ladder, start_point=point))
    events = collect(handle, has(Finished))
    assert events[0] == only(events, Ready)[0]
    ready = only(events, Ready)[0]
    runtime = "onnxruntime" if point in (0, 3) else "litert"
    assert (ready.point, ready.runtime, ready.unit) == (point, runtime, "cpu")
    assert ready.load_ms > 0 and ready.rss_mib > 10
    made = decisions(events)
    assert [d.frame for d in made] == list(range(40))
    assert [d.label for d in made] == [d.expected for d in made] == colour_frames(40)[1]
    stats = only(events, Stats)
    assert sum(s.frames for s in stats) == sum(s.labelled for s in stats) == 40
    assert sum(s.correct for s in stats) == 40 and sum(s.errors for s in stats) == 0
    assert sum(len(s.latencies_ms) for s in stats) == 40
    assert {s.point for s in stats} == {point}
    assert events[-1] == Finished(reason="end-of-stream")
    assert wait_exit(handle) == 0


def test_late_frames_are_reported_before_the_interval_is_over(
    workers: Workers, ladder: DeviceRelease
) -> None:
    source = {"fps": 50.0, "loop": True}
    spec = workers.spec(ladder, source=source, objective_ms=1e-6, stats_interval_s=30.0)
    events = collect(workers.spawn(spec), lambda seen: len(only(seen, Stats)) >= 3)
    assert all(stats.frames for stats in only(events, Stats))


def test_a_held_worker_beats_but_opens_nothing(workers: Workers, ladder: DeviceRelease) -> None:
    spec = workers.spec(ladder, hold=True, source={"path": "/nowhere/frames.npz"})
    handle = workers.spawn(spec)
    events = collect(handle, lambda seen: len(only(seen, Stats)) >= 3)
    assert not only(events, Failed) and sum(s.frames for s in only(events, Stats)) == 0
    handle.send(Start())
    failed = only(collect(handle, has(Failed)), Failed)[0]
    assert failed.code == "source.missing-file" and "/nowhere/frames.npz" in failed.cause
    assert wait_exit(handle) == 8


def test_a_point_changes_between_frames_of_a_running_stream(
    workers: Workers, ladder: DeviceRelease
) -> None:
    handle = workers.spawn(workers.spec(ladder, source={"loop": True, "fps": 400.0}))
    events = collect(handle, has(Results))
    for index in (2, 1, 3):
        handle.send(SetPoint(index=index))
        events += collect(handle, has(PointChanged))
        events += collect(handle, has(Results))
    handle.send(Stop())
    events += collect(handle, has(Finished))
    assert events[-1] == Finished(reason="stopped") and wait_exit(handle) == 0
    changed = only(events, PointChanged)
    assert [c.index for c in changed] == [2, 1, 3]
    assert [c.runtime for c in changed] == ["litert", "litert", "onnxruntime"]
    frames = [d.frame for d in decisions(events)]
    assert frames == list(range(len(frames)))  # nothing lost, nothing twice
    assert all(d.label == d.expected for d in decisions(events))
    points = [event.point for event in only(events, Results)]
    runs = [points[0]] + [b for a, b in pairwise(points) if a != b]
    assert runs == [0, 2, 1, 3]


def test_the_last_point_asked_for_wins(workers: Workers, ladder: DeviceRelease) -> None:
    handle = workers.spawn(workers.spec(ladder, source={"loop": True, "fps": 200.0}))
    collect(handle, has(Ready))
    for index in (1, 2, 3, 1, 2):
        handle.send(SetPoint(index=index))
    events = collect(
        handle, lambda seen: any(isinstance(e, Results) and e.point == 2 for e in seen)
    )
    assert [c.index for c in only(events, PointChanged)][-1] == 2


def test_points_that_do_not_exist_or_are_damaged_leave_the_old_one_running(
    workers: Workers, tmp_path: Path
) -> None:
    release = make_release(tmp_path / "r", [Recipe("onnx", 16), Recipe("onnx", 8)])
    handle = workers.spawn(workers.spec(release, source={"loop": True, "fps": 200.0}))
    collect(handle, has(Results))
    model = release.artifact(1)
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    handle.send(SetPoint(index=7))
    handle.send(SetPoint(index=1))
    events = collect(handle, lambda seen: len(only(seen, PointRefused)) == 2)
    refused = {event.index: event for event in only(events, PointRefused)}
    assert refused[7].code == "contract.no-such-point"
    assert refused[1].code == "trust.blob-damaged" and str(model) in refused[1].cause
    later = collect(handle, has(Results))
    assert only(later, Results)[0].point == 0 and not only(later, PointChanged)


def test_a_video_file_is_served(workers: Workers, ladder: DeviceRelease, tmp_path: Path) -> None:
    import cv2

    frames, labels = colour_frames(25, size_px=48)
    path = tmp_path / "stream.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (48, 48))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    sidecar = tmp_path / "labels.json"
    sidecar.write_text(json.dumps({"labels": labels}))
    source = {"kind": "video", "path": str(path), "labels": str(sidecar)}
    events = collect(workers.spawn(workers.spec(ladder, source=source)), has(Finished))
    assert [d.label for d in decisions(events)] == labels
    assert [d.expected for d in decisions(events)] == labels


def test_a_camera_that_is_not_there_keeps_the_worker_alive_and_is_told(
    workers: Workers, ladder: DeviceRelease
) -> None:
    handle = workers.spawn(workers.spec(ladder, source={"kind": "camera", "device": 97}))
    events = collect(handle, lambda seen: any(s.source for s in only(seen, Stats)))
    assert "Cannot open camera 97" in only(events, Stats)[-1].source
    collect(handle, has(Stats))
    handle.send(Stop())
    assert collect(handle, has(Finished))[-1] == Finished(reason="stopped")
    assert wait_exit(handle) == 0


def test_frames_that_fail_are_counted_and_do_not_end_the_stream(
    workers: Workers, tmp_path: Path
) -> None:
    """An int8 model has finite outputs whatever happens; a float one meets an infinite weight."""
    release = make_release(tmp_path / "r", [Recipe("onnx-overflow", 16)])
    events = collect(workers.spawn(workers.spec(release)), has(Finished))
    assert sum(s.errors for s in only(events, Stats)) == 40
    assert not decisions(events)


def test_golden_passes_on_both_runtimes(workers: Workers, ladder: DeviceRelease) -> None:
    handle = workers.spawn(workers.spec(ladder, mode="golden"))
    events = collect(handle, has(GoldenDone))
    assert only(events, GoldenProgress) == [GoldenProgress(done=n, total=4) for n in (1, 2, 3, 4)]
    done = only(events, GoldenDone)[0]
    assert done.ok and done.max_error <= 1e-3
    assert "litert" in done.detail and "onnxruntime" in done.detail
    assert wait_exit(handle) == 0


@pytest.mark.parametrize("kind", ["onnx", "tflite", "tflite-int8"])
def test_golden_names_the_first_point_that_differs(
    workers: Workers, tmp_path: Path, kind: str
) -> None:
    release = make_release(tmp_path / "r", [Recipe(kind, 16)], golden_shift=0.25)
    handle = workers.spawn(workers.spec(release, mode="golden"))
    done = only(collect(handle, has(GoldenDone)), GoldenDone)[0]
    assert not done.ok and done.max_error == pytest.approx(0.25, abs=1e-3)
    assert release.manifest.ladders["x86-generic"][0].id in done.detail


def test_golden_needs_a_tolerance_for_the_runtime_that_runs(
    workers: Workers, tmp_path: Path
) -> None:
    release = make_release(tmp_path / "r", [Recipe("onnx", 16)])
    document = json.loads(release.path.read_bytes())
    for artifact in document["artifacts"].values():
        artifact["tolerance"] = {"litert": 1.0}
    release.path.write_text(json.dumps(document))
    done = only(
        collect(workers.spawn(workers.spec(release, mode="golden")), has(GoldenDone)), GoldenDone
    )[0]
    assert not done.ok and "no tolerance for onnxruntime" in done.detail


@pytest.mark.parametrize("mode", ["serve", "golden"])
@pytest.mark.parametrize(
    ("damage", "code", "exit_code"),
    [
        ("flip", "trust.blob-damaged", 6),
        ("truncate", "trust.blob-damaged", 6),
        ("remove", "storage.blob-missing", 7),
        ("manifest", "contract.malformed", 4),
        ("no-manifest", "storage.unreadable", 7),
        ("profile", "contract.no-ladder", 4),
    ],
)
def test_a_damaged_release_is_refused_by_name(
    workers: Workers, tmp_path: Path, mode: str, damage: str, code: str, exit_code: int
) -> None:
    release = make_release(tmp_path / "r", [Recipe("onnx", 16)])
    model = release.artifact(0)
    options = {}
    if damage == "flip":
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)
    elif damage == "truncate":
        model.write_bytes(model.read_bytes()[:-10])
    elif damage == "remove":
        model.unlink()
    elif damage == "manifest":
        release.path.write_bytes(encode(release.manifest)[:-20])
    elif damage == "no-manifest":
        release.path.unlink()
    else:
        options = {"profile": "x86-generik"}
    handle = workers.spawn(workers.spec(release, mode=mode, **options))
    failed = only(collect(handle, has(Failed)), Failed)[0]
    assert failed.code == code and failed.hint
    assert wait_exit(handle) == exit_code
    assert "Traceback" not in handle.output


def test_points_for_runtimes_the_device_lacks_are_neither_tested_nor_counted(
    workers: Workers, tmp_path: Path
) -> None:
    """Their blobs are not even downloaded."""
    release = make_release(
        tmp_path / "r", [Recipe("onnx", 16), Recipe("tflite", 16), Recipe("tflite", 8)]
    )
    release.artifact(0).unlink()
    golden = workers.spawn(workers.spec(release, mode="golden", runtimes=("litert",)))
    assert only(collect(golden, has(GoldenDone)), GoldenDone)[0].detail.startswith("2 operating")
    serving = workers.spawn(workers.spec(release, runtimes=("litert",), start_point=5))
    assert only(collect(serving, has(Finished)), Ready)[0].point == 1
    none = workers.spawn(workers.spec(release, runtimes=("tvm",)))
    failed = only(collect(none, has(Failed)), Failed)[0]
    assert failed.code == "contract.no-ladder" and "for tvm" in failed.cause


def test_golden_vectors_that_prove_nothing_are_refused(workers: Workers, tmp_path: Path) -> None:
    release = make_release(tmp_path / "r", [Recipe("onnx", 16)])
    artifact = next(iter(release.manifest.artifacts.values()))
    empty = tmp_path / "empty.npz"
    np.savez(empty, input=np.zeros((0, 3, 16, 16), np.float32), output=np.zeros((0, 3), np.float32))
    from edge_sdk.bundle.blobs import blob_ref

    digest = blob_ref(empty).digest
    (release.blobs / digest).write_bytes(empty.read_bytes())
    release.path.write_bytes(
        release.path.read_bytes().replace(artifact.golden.encode(), digest.encode())
    )
    handle = workers.spawn(workers.spec(release, mode="golden"))
    assert only(collect(handle, has(Failed)), Failed)[0].code == "contract.bad-golden"
