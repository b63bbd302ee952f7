"""Workers that listen, as real processes: words, clips, points, and everything that goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from agent.pipelines.config import PublishConfig
from agent.sound.config import SoundConfig
from agent.worker.handle import WorkerHandle
from agent.worker.protocol import (
    Event,
    Failed,
    Finished,
    GoldenDone,
    PointChanged,
    Ready,
    Results,
    SetPoint,
    Stats,
    Stop,
    WorkerSpec,
)
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.wavefile import read_wave, wave_bytes
from edge_sdk.contracts.audio import Enhancement, SoundInfo
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.telemetry import Decision
from tests.fakes.classifiers import DeviceRelease
from tests.fakes.listeners import (
    CLEANS,
    DEAF,
    HEARS,
    LOUD,
    make_listening_release,
    with_filter,
)
from tests.fakes.workers import Workers, collect, has, wait_exit
from tests.unit.audio.test_features import RATE, noise

WORDS_S = (1.0, 2.5, 4.0)

STEPS = ((88000 - 400) // 160 + 1) // 2


@pytest.fixture(scope="module")
def listens(tmp_path_factory: pytest.TempPathFactory) -> DeviceRelease:
    return make_listening_release(tmp_path_factory.mktemp("listens"), (HEARS, DEAF))


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """Three loud words in a quiet room."""
    path = tmp_path / "said.wav"
    path.write_bytes(wave_bytes(words(), RATE))
    return path


def words() -> Floats:
    parts = [noise(1.0, 1, 0.0005)]
    for seed in range(len(WORDS_S)):
        parts += [noise(0.4, seed, 0.2), noise(1.1, 9, 0.0005)]
    return np.concatenate(parts)


def spec(
    workers: Workers,
    release: DeviceRelease,
    path: Path | str,
    sound: SoundConfig | None = None,
    **options: Any,
) -> WorkerSpec:
    source = {"kind": "sound", "path": str(path), **options.pop("source", {})}
    found = workers.spec(release, source=source, **options)
    assert found.pipeline is not None
    pipeline = msgspec.structs.replace(found.pipeline, sound=sound or SoundConfig())
    return msgspec.structs.replace(found, pipeline=pipeline)


def decisions(events: list[Event]) -> list[Decision]:
    return [d for event in events if isinstance(event, Results) for d in event.decisions]


def failure(handle: WorkerHandle) -> Failed:
    (failed,) = [e for e in collect(handle, has(Failed)) if isinstance(e, Failed)]
    assert "Traceback" not in handle.output
    return failed


def test_every_word_is_heard_and_every_step_counted(
    workers: Workers, listens: DeviceRelease, said: Path
) -> None:
    handle = workers.spawn(spec(workers, listens, said))
    events = collect(handle, has(Finished))
    assert isinstance(events[0], Ready)
    heard = decisions(events)
    assert [d.label for d in heard] == ["loud"] * 3
    for decision, at_s in zip(heard, WORDS_S, strict=True):
        assert 0 < decision.frame * 0.02 - at_s < 0.15
        assert decision.score >= 0.5
    stats = [event for event in events if isinstance(event, Stats)]
    assert sum(s.frames for s in stats) == STEPS
    assert sum(s.errors + s.dropped for s in stats) == 0
    assert sum(s.low_confidence for s in stats) == 0, "a step without a word is no doubt"
    assert events[-1] == Finished(reason="end-of-stream")
    assert wait_exit(handle) == 0


def test_a_network_without_words_decides_at_every_step(
    workers: Workers, said: Path, tmp_path: Path
) -> None:
    fields = {name: getattr(LOUD, name) for name in LOUD.__struct_fields__}
    plain = SoundInfo(**{**fields, "words": ()})
    release = make_listening_release(tmp_path / "release", sound=plain)
    events = collect(workers.spawn(spec(workers, release, said)), has(Finished))
    assert [d.frame for d in decisions(events)] == list(range(STEPS))


def test_the_device_has_its_own_cutoff_and_keeps_clips(
    workers: Workers, listens: DeviceRelease, said: Path, tmp_path: Path
) -> None:
    sound = SoundConfig(
        cutoffs={"loud": 0.9}, gate=True, clips=str(tmp_path / "clips"), keep_clips=2, before_s=1.0
    )
    events = collect(workers.spawn(spec(workers, listens, said, sound)), has(Finished))
    assert len(decisions(events)) == 3
    assert all(decision.score >= 0.9 for decision in decisions(events))
    clips = sorted((tmp_path / "clips").iterdir())
    assert [clip.name.rpartition("-")[0] for clip in clips] == ["000002-loud", "000003-loud"]
    samples, rate_hz = read_wave(clips[0])
    assert (len(samples), rate_hz) == (1.5 * RATE, RATE)
    assert np.abs(samples).max() > 0.3, "the word is in it"


def test_a_word_that_is_heard_too_often_needs_a_higher_score(
    workers: Workers, listens: DeviceRelease, said: Path
) -> None:
    events = collect(
        workers.spawn(spec(workers, listens, said, SoundConfig(most_per_hour=1))), has(Finished)
    )
    first, second, third = (decision.score for decision in decisions(events))
    assert max(first, second) < 0.75 <= third, "half of what is left above 0.5"


def test_the_accurate_point_confirms_what_the_cheap_one_hears(
    workers: Workers, said: Path, tmp_path: Path
) -> None:
    verify = SoundConfig(verify=True)
    both = make_listening_release(tmp_path / "both", (HEARS, HEARS + 0.5))
    events = collect(workers.spawn(spec(workers, both, said, verify, start_point=1)), has(Finished))
    assert len(decisions(events)) == 3
    doubts = make_listening_release(tmp_path / "doubts", (DEAF, HEARS))
    events = collect(
        workers.spawn(spec(workers, doubts, said, verify, start_point=1)), has(Finished)
    )
    assert decisions(events) == []


def test_a_point_changes_while_it_listens(
    workers: Workers, listens: DeviceRelease, said: Path
) -> None:
    handle = workers.spawn(
        spec(workers, listens, said, source={"realtime": True, "loop": True}, start_point=1)
    )
    collect(handle, lambda seen: any(isinstance(e, Stats) and e.frames for e in seen))
    handle.send(SetPoint(index=0))
    events = collect(handle, has(Results))
    (changed,) = [event for event in events if isinstance(event, PointChanged)]
    assert (changed.index, changed.runtime) == (0, "onnxruntime")
    handle.send(SetPoint(index=7))
    handle.send(Stop())
    events = collect(handle, has(Finished))
    assert any(getattr(event, "code", "") == "contract.no-such-point" for event in events)
    assert events[-1] == Finished(reason="stopped")


def test_what_was_decided_before_a_move_is_told_of_the_point_that_decided(
    workers: Workers, said: Path, tmp_path: Path
) -> None:
    fields = {name: getattr(LOUD, name) for name in LOUD.__struct_fields__}
    plain = SoundInfo(**{**fields, "words": ()})
    release = make_listening_release(tmp_path / "release", (HEARS, DEAF), sound=plain)
    asked = spec(workers, release, said, source={"realtime": True, "loop": True})
    waits = PublishConfig(batch=1000, max_interval_s=60.0)
    asked = msgspec.structs.replace(
        asked, pipeline=msgspec.structs.replace(asked.pipeline, publish=waits)
    )
    handle = workers.spawn(asked)
    collect(handle, lambda seen: any(isinstance(e, Stats) and e.frames for e in seen))
    handle.send(SetPoint(index=1))
    events = collect(handle, has(PointChanged))
    (results,) = [event for event in events if isinstance(event, Results)]
    assert results.decisions
    assert results.point == 0
    assert {event.point for event in events if isinstance(event, Stats)} == {0}
    handle.send(Stop())
    collect(handle, has(Finished))


@pytest.mark.parametrize(
    ("gain", "enhance", "heard"), [(1.0, True, 3), (0.0, True, 0), (0.0, False, 3)]
)
def test_a_filter_cleans_the_sound_before_it_is_heard(
    workers: Workers, said: Path, tmp_path: Path, gain: float, enhance: bool, heard: int
) -> None:
    release = with_filter(make_listening_release(tmp_path / "release"), gain)
    sound = SoundConfig(enhance=enhance, gate=gain > 0)
    events = collect(workers.spawn(spec(workers, release, said, sound)), has(Finished))
    assert [d.label for d in decisions(events)] == ["loud"] * heard
    for decision, at_s in zip(decisions(events), WORDS_S, strict=False):
        assert 0 < decision.frame * 0.02 - at_s < 0.15 or gain > 0, "positions stay"


def test_the_golden_test_covers_the_filter(workers: Workers, tmp_path: Path) -> None:
    release = with_filter(make_listening_release(tmp_path / "release"), 0.5)
    (events,) = [collect(workers.spawn(workers.spec(release, "golden")), has(GoldenDone))]
    (done,) = [event for event in events if isinstance(event, GoldenDone)]
    assert done.ok, done.detail
    other = with_filter(make_listening_release(tmp_path / "other"), 0.75)
    (ours,) = (release.manifest.task.enhance or Enhancement(spec=CLEANS)).artifacts.values()
    (its,) = (other.manifest.task.enhance or Enhancement(spec=CLEANS)).artifacts.values()
    # The other filter's answers for ours: a filter that computes something else here than there.
    wrong = other.manifest.artifacts[its].golden
    (release.blobs / wrong).write_bytes((other.blobs / wrong).read_bytes())
    described = replace(release.manifest.artifacts[ours], golden=wrong)
    artifacts = release.manifest.artifacts | {ours: described}
    blobs = release.manifest.blobs | {wrong: other.manifest.blobs[wrong]}
    release.path.write_bytes(encode(replace(release.manifest, artifacts=artifacts, blobs=blobs)))
    events = collect(workers.spawn(workers.spec(release, "golden")), has(GoldenDone))
    (done,) = [event for event in events if isinstance(event, GoldenDone)]
    assert not done.ok
    assert "filter" in done.detail


def test_its_golden_test_covers_the_states(workers: Workers, listens: DeviceRelease) -> None:
    events = collect(workers.spawn(workers.spec(listens, "golden")), has(GoldenDone))
    (done,) = [event for event in events if isinstance(event, GoldenDone)]
    assert done.ok, done.detail


def test_a_pipe_without_a_writer_is_trouble_and_no_death(
    workers: Workers, listens: DeviceRelease, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    handle = workers.spawn(spec(workers, listens, tmp_path / "pipe", source={"kind": "pipe"}))
    events = collect(
        handle, lambda seen: any(isinstance(e, Stats) and "stopped" in e.source for e in seen)
    )
    assert not has(Failed)(events)
    writer = os.open(tmp_path / "pipe", os.O_WRONLY)
    sound = (words() * 2**15).astype("<i2").tobytes()
    os.write(writer, sound[:60000])
    events = collect(handle, lambda seen: any(isinstance(e, Stats) and e.frames for e in seen))
    os.close(writer)
    handle.send(Stop())
    assert collect(handle, has(Finished))[-1] == Finished(reason="stopped")


def test_a_word_that_the_release_does_not_know_is_named(
    workers: Workers, listens: DeviceRelease, said: Path
) -> None:
    sound = SoundConfig(cutoffs={"lout": 0.9})
    failed = failure(workers.spawn(spec(workers, listens, said, sound)))
    assert failed.code == "config.no-such-word"
    assert "'loud'" in failed.hint


def test_pictures_for_a_network_that_listens_are_refused(
    workers: Workers, listens: DeviceRelease, ladder: DeviceRelease, said: Path
) -> None:
    failed = failure(workers.spawn(workers.spec(listens)))
    assert failed.code == "config.source-mismatch"
    failed = failure(workers.spawn(spec(workers, ladder, said)))
    assert failed.code == "config.source-mismatch"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "source.missing-file"),
        (b"no sound", "source.bad-wave"),
        (wave_bytes(noise(0.0), RATE), "source.empty"),
        (wave_bytes(noise(1.0), 12345), "source.bad-rate"),
    ],
)
def test_bad_files_end_with_the_reason(
    workers: Workers, listens: DeviceRelease, tmp_path: Path, content: bytes | None, code: str
) -> None:
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    assert failure(workers.spawn(spec(workers, listens, path))).code == code


def test_a_pipe_in_place_of_a_file_does_not_hold_the_worker(
    workers: Workers, listens: DeviceRelease, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "queue.wav")
    failed = failure(workers.spawn(spec(workers, listens, tmp_path / "queue.wav")))
    assert failed.code == "source.missing-file"
    assert "kind = 'pipe'" in failed.hint


def test_a_file_in_place_of_a_pipe_is_named_and_not_repeated(
    workers: Workers, listens: DeviceRelease, said: Path
) -> None:
    handle = workers.spawn(spec(workers, listens, said, source={"kind": "pipe"}))
    events = collect(
        handle, lambda seen: any(isinstance(e, Stats) and "not a pipe" in e.source for e in seen)
    )
    assert sum(event.frames for event in events if isinstance(event, Stats)) == 0


def test_damage_within_a_compressed_file_is_named(
    workers: Workers, listens: DeviceRelease, tmp_path: Path
) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "said.flac"
    soundfile.write(path, words(), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    failed = failure(workers.spawn(spec(workers, listens, path)))
    assert failed.code == "source.bad-wave"


def test_the_agents_standard_input_is_heard(workers: Workers, listens: DeviceRelease) -> None:
    inner, outer = os.pipe()
    kept = os.dup(0)
    os.dup2(inner, 0)
    try:
        handle = workers.spawn(spec(workers, listens, "-", source={"kind": "pipe"}))
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(inner)
    with os.fdopen(outer, "wb") as writer:
        writer.write((words() * 2**15).astype("<i2").tobytes())
    events = collect(handle, has(Finished))
    assert [decision.label for decision in decisions(events)] == ["loud"] * 3
