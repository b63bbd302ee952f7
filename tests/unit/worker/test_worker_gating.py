"""The gate in real workers: which point answers, what is counted, and what switches it off."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.adapt.gate import PROBE_FRAMES
from agent.worker.protocol import (
    AllowCascade,
    Event,
    Finished,
    PointChanged,
    Results,
    SetPoint,
    Stats,
)
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.operating_point import Cascade
from tests.fakes.classifiers import PROFILE, DeviceRelease, Recipe, make_release
from tests.fakes.workers import Workers, collect


def gated_release(
    folder: Path, threshold: float, *, first: str = "onnx-upside-down"
) -> DeviceRelease:
    """A full point that is right, below one that is always wrong, so that each shows who spoke."""
    release = make_release(folder, (Recipe("onnx", 16), Recipe(first, 8), Recipe("onnx", 12)))
    full, *rest = release.manifest.ladders[PROFILE]
    cascade = Cascade(
        first=rest[0].id,
        threshold=threshold,
        escalated=0.5,
        disagreement=0.0,
        mean_ms=0.5,
        alone_ms=1.0,
        samples=100,
    )
    ladder = (replace(full, cascade=cascade), *rest)
    manifest = replace(release.manifest, ladders={PROFILE: ladder})
    release.path.write_bytes(encode(manifest))
    return DeviceRelease(manifest, release.path, release.blobs)


def only(events: list[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def total(events: list[Event], name: str) -> int:
    return sum(getattr(event, name) for event in only(events, Stats))


def spec_of(workers: Workers, release: DeviceRelease, **options: object) -> object:
    return workers.spec(release, source={"loop": True, "fps": 400.0}, **options)


def test_a_sure_first_point_answers(workers: Workers, tmp_path: Path) -> None:
    handle = workers.spawn(spec_of(workers, gated_release(tmp_path / "r", 0.0)))
    events = collect(handle, lambda seen: total(seen, "gated") >= 60)
    assert total(events, "escalated") == 0
    made = [d for event in only(events, Results) for d in event.decisions]
    assert all(d.label == d.expected for d in made[:PROBE_FRAMES])
    wrong = [d for d in made if d.label != d.expected]
    assert wrong and {event.point for event in only(events, Results)} == {0}


def test_an_unsure_first_point_never_has_the_last_word(workers: Workers, tmp_path: Path) -> None:
    handle = workers.spawn(spec_of(workers, gated_release(tmp_path / "r", 1.0)))
    events = collect(handle, lambda seen: total(seen, "gated") >= 40)
    assert total(events, "escalated") == total(events, "gated")
    made = [d for event in only(events, Results) for d in event.decisions]
    assert made and all(d.label == d.expected for d in made)
    assert total(events, "correct") == total(events, "labelled") > 0


@pytest.mark.parametrize("at_start", [True, False])
def test_without_memory_there_is_no_second_point(
    workers: Workers, tmp_path: Path, at_start: bool
) -> None:
    release = gated_release(tmp_path / "r", 0.0)
    handle = workers.spawn(spec_of(workers, release, cascade=not at_start))
    if not at_start:
        collect(handle, lambda seen: total(seen, "gated") >= 1)
        handle.send(AllowCascade(on=False))
        # What was gated before the command was obeyed is reported by then.
        collect(handle, lambda seen: sum(not s.gated for s in only(seen, Stats) if s.frames) >= 2)
    events = collect(handle, lambda seen: total(seen, "frames") >= 60)
    assert total(events, "gated") == 0
    handle.send(AllowCascade(on=True))
    collect(handle, lambda seen: total(seen, "gated") >= 20)


def test_the_gate_follows_the_governor(workers: Workers, tmp_path: Path) -> None:
    handle = workers.spawn(spec_of(workers, gated_release(tmp_path / "r", 1.0)))
    collect(handle, lambda seen: total(seen, "gated") >= 1)
    handle.send(SetPoint(index=1))  # the first point itself: it is loaded already
    moved = collect(handle, lambda seen: bool(only(seen, PointChanged)))
    assert only(moved, PointChanged)[0].load_ms == 0.0
    events = collect(
        handle, lambda seen: sum(s.point == 1 and s.frames > 0 for s in only(seen, Stats)) >= 2
    )
    assert not any(s.gated for s in only(events, Stats) if s.point == 1)
    handle.send(SetPoint(index=2))
    collect(handle, lambda seen: any(e.index == 2 for e in only(seen, PointChanged)))
    handle.send(SetPoint(index=0))
    collect(handle, lambda seen: any(e.index == 0 for e in only(seen, PointChanged)))
    collect(handle, lambda seen: total(seen, "gated") >= 20)


def test_a_first_point_that_cannot_be_loaded_costs_nothing_but_the_gate(
    workers: Workers, tmp_path: Path
) -> None:
    release = gated_release(tmp_path / "r", 0.0)
    release.artifact(1).write_bytes(b"damaged")
    handle = workers.spawn(workers.spec(release))
    events = collect(handle, lambda seen: bool(only(seen, Finished)))
    assert total(events, "frames") == total(events, "correct") == 40
    assert total(events, "gated") == 0
