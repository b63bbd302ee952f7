"""A worker whose points are built on the device: it serves, tests and refuses like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.worker.protocol import (
    Event,
    Failed,
    Finished,
    GoldenDone,
    PointChanged,
    PointRefused,
    Ready,
    Results,
    SetPoint,
    Start,
    Stop,
)
from tests.fakes.classifiers import PROFILE, DeviceRelease
from tests.fakes.ladders import PADDING_BYTES, padded_ladder
from tests.fakes.workers import Workers, collect, has


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> DeviceRelease:
    """Three points, of which only the first is stored. Not to be changed by a test."""
    release = padded_ladder(tmp_path_factory.mktemp("built"))
    models = [point.artifact for point in release.manifest.ladders[PROFILE]]
    assert [digest in release.manifest.blobs for digest in models] == [True, False, False]
    stored = sum(ref.size_bytes for ref in release.manifest.blobs.values())
    assert stored < 1.5 * PADDING_BYTES
    return release


@pytest.fixture
def own(built: DeviceRelease, tmp_path: Path) -> DeviceRelease:
    """A copy to damage."""
    shutil.copytree(built.path.parent, tmp_path / "release")
    folder = tmp_path / "release"
    return DeviceRelease(built.manifest, folder / "manifest.json", folder / "blobs")


def labels(events: list[Event]) -> list[tuple[str, str]]:
    batches = [event for event in events if isinstance(event, Results)]
    return [(each.label, each.expected) for batch in batches for each in batch.decisions]


@pytest.mark.parametrize("point", [1, 2])
def test_a_built_point_decides_every_frame(
    workers: Workers, built: DeviceRelease, point: int
) -> None:
    before = sorted(path.name for path in built.blobs.iterdir())
    events = collect(workers.spawn(workers.spec(built, start_point=point)), has(Finished))
    decided = labels(events)
    assert len(decided) == 40
    assert all(label == expected for label, expected in decided)
    assert sorted(path.name for path in built.blobs.iterdir()) == before


def test_every_built_point_passes_its_golden_test(workers: Workers, built: DeviceRelease) -> None:
    events = collect(workers.spawn(workers.spec(built, mode="golden")), has(GoldenDone))
    (done,) = (event for event in events if isinstance(event, GoldenDone))
    assert done.ok, done.detail
    assert done.max_error < 1e-3


def test_moving_between_stored_and_built_points(workers: Workers, built: DeviceRelease) -> None:
    source = {"loop": True, "fps": 100.0}
    handle = workers.spawn(workers.spec(built, source=source, hold=True))
    collect(handle, has(Ready))
    handle.send(Start())
    moves = ((1, False), (2, False), (1, True), (2, True), (0, False))
    beside = [(index, resident, False) for index, resident in moves]
    for index, resident, alone in (*beside, (1, False, True), (0, False, False), (1, True, True)):
        handle.send(SetPoint(index=index, alone=alone))
        events = collect(handle, has(PointChanged))
        (changed,) = (event for event in events if isinstance(event, PointChanged))
        assert changed.index == index
        assert (changed.load_ms == 0.0) == resident
        assert all(label == expected for label, expected in labels(events))
    handle.send(Stop())
    collect(handle, has(Finished))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def harm_recipe(release: DeviceRelease) -> None:
    point = release.manifest.ladders[PROFILE][1]
    flip(release.blobs / release.manifest.derived[point.artifact].recipe)


def lose_recipe(release: DeviceRelease) -> None:
    point = release.manifest.ladders[PROFILE][1]
    (release.blobs / release.manifest.derived[point.artifact].recipe).unlink()


def harm_base(release: DeviceRelease) -> None:
    flip(release.artifact(0))


HARMS = [
    (harm_recipe, "trust.blob-damaged"),
    (lose_recipe, "storage.blob-missing"),
    (harm_base, "trust.blob-damaged"),
]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("harm", "code"), HARMS)
def test_a_point_that_cannot_be_built_is_refused_and_the_old_one_serves_on(
    workers: Workers,
    own: DeviceRelease,
    harm: Callable[[DeviceRelease], None],
    code: str,
    alone: bool,
) -> None:
    source = {"loop": True, "fps": 100.0}
    handle = workers.spawn(workers.spec(own, source=source, hold=True))
    collect(handle, has(Ready))
    handle.send(Start())
    harm(own)
    handle.send(SetPoint(index=1, alone=alone))
    (refused,) = (e for e in collect(handle, has(PointRefused)) if isinstance(e, PointRefused))
    assert (refused.index, refused.code) == (1, code)
    after = labels(collect(handle, has(Results)))
    assert after and all(label == expected for label, expected in after)


@pytest.mark.parametrize(("harm", "code"), HARMS)
def test_a_release_that_cannot_be_built_does_not_pass_its_golden_test(
    workers: Workers, own: DeviceRelease, harm: Callable[[DeviceRelease], None], code: str
) -> None:
    harm(own)
    events = collect(workers.spawn(workers.spec(own, mode="golden")), has(Failed))
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert failed.code == code
