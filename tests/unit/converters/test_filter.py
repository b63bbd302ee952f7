"""A filter travels with the network that it cleans the sound for."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agent.pipelines.enhancing import SpeechFilter
from agent.pipelines.listening import Listening
from agent.sound.ring import Heard
from agent.worker.points import Points, read_manifest
from converters.enhance.filter import add_filter
from edge_sdk.bundle.needs import needed_refs
from edge_sdk.bundle.release import create_release
from edge_sdk.contracts.audio import Enhancement, EnhanceSpec
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.errors import ContractError, ConversionError
from edge_sdk.runtime.stream import StreamSession
from tests.fakes.classifiers import PROFILE, DeviceRelease
from tests.fakes.listeners import CLEANS, make_listening_release, with_filter, write_filter
from tests.unit.audio.test_features import noise


def conversion_of(release: DeviceRelease, folder: Path) -> Path:
    """The conversion that a release could have been made of."""
    manifest = release.manifest
    shutil.copytree(release.blobs, folder / "artifacts")
    found = Conversion(
        created=manifest.created,
        task=manifest.task,
        artifacts=manifest.artifacts,
        ladders=manifest.ladders,
        files={digest: f"artifacts/{digest}" for digest in manifest.blobs},
    )
    (folder / "conversion.json").write_bytes(encode(found))
    return folder


def enhancer(folder: Path, spec: EnhanceSpec = CLEANS) -> Path:
    """The conversion of a filter that leaves the sound alone."""
    blobs = folder / "artifacts"
    blobs.mkdir(parents=True)
    artifact = write_filter(folder, blobs, 1.0)
    listens = make_listening_release(folder / "unused").manifest
    point = replace(listens.ladders[PROFILE][0], artifact=artifact.digest)
    found = Conversion(
        created=listens.created,
        task=replace(listens.task, sound=None, enhance=Enhancement(spec=spec)),
        artifacts={artifact.digest: artifact},
        ladders={PROFILE: (point,)},
        files={digest: f"artifacts/{digest}" for digest in (artifact.digest, artifact.golden)},
    )
    (folder / "conversion.json").write_bytes(encode(found))
    return folder


def read(folder: Path) -> Conversion:
    return decode((folder / "conversion.json").read_bytes(), Conversion, "conversion")


def test_a_filter_becomes_part_of_the_release(tmp_path: Path) -> None:
    listens = conversion_of(make_listening_release(tmp_path / "made"), tmp_path / "listens")
    (chosen,) = add_filter(listens, enhancer(tmp_path / "enhancer"))
    manifest = create_release(listens, tmp_path / "release", name="words", version="1")
    assert manifest.task.enhance == Enhancement(
        spec=CLEANS, artifacts={"onnxruntime": chosen.digest}
    )
    needed = {ref.digest for ref in needed_refs(manifest, manifest.ladders[PROFILE])}
    assert {chosen.digest, chosen.golden} < needed
    folder = tmp_path / "release"
    points = Points(read_manifest(folder / "manifest.json"), folder / "blobs", PROFILE)
    found = points.open_filter(points.ladder[0])
    assert found is not None
    found[2].close()


def test_a_second_filter_takes_the_place_of_the_first(tmp_path: Path) -> None:
    listens = conversion_of(make_listening_release(tmp_path / "made"), tmp_path / "listens")
    source = enhancer(tmp_path / "enhancer")
    add_filter(listens, source)
    before = read(listens)
    add_filter(listens, source)
    assert read(listens) == before
    assert len(before.artifacts) == 2


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    listens = conversion_of(make_listening_release(tmp_path / "made"), tmp_path / "listens")
    before = (listens / "conversion.json").read_bytes()
    good = enhancer(tmp_path / "enhancer")
    slow = enhancer(tmp_path / "slow", EnhanceSpec(sample_rate_hz=8000))
    for target, source, scheme in (
        (good, good, ""),
        (listens, listens, ""),
        (listens, slow, ""),
        (listens, good, "static_wi8_ai8"),
    ):
        with pytest.raises(ConversionError) as caught:
            add_filter(target, source, scheme=scheme)
        assert caught.value.slug == "no-filter"
    assert (listens / "conversion.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["changed", "missing", "unlisted"])
def test_an_enhancer_with_a_damaged_file_leaves_the_conversion_as_it_was(
    tmp_path: Path, damage: str
) -> None:
    listens = conversion_of(make_listening_release(tmp_path / "made"), tmp_path / "listens")
    source = enhancer(tmp_path / "enhancer")
    found = read(source)
    (digest,) = found.artifacts
    if damage == "changed":
        (source / found.files[digest]).write_bytes(b"")
    elif damage == "missing":
        (source / found.files[digest]).unlink()
    else:
        (source / "conversion.json").write_bytes(encode(replace(found, files={})))
    with pytest.raises(ContractError) as caught:
        add_filter(listens, source)
    assert caught.value.slug == "incomplete-conversion"
    assert not (listens / "filter").exists()
    create_release(listens, tmp_path / "release", name="words", version="1")


def test_a_manifest_with_a_filter_that_it_does_not_list_is_refused(tmp_path: Path) -> None:
    listens = conversion_of(make_listening_release(tmp_path / "made"), tmp_path / "listens")
    found = read(listens)
    lost = replace(
        found.task, enhance=Enhancement(spec=CLEANS, artifacts={"onnxruntime": "0" * 64})
    )
    (listens / "conversion.json").write_bytes(encode(replace(found, task=lost)))
    with pytest.raises(ContractError) as caught:
        create_release(listens, tmp_path / "release", name="words", version="1")
    assert caught.value.slug == "inconsistent-manifest"


def test_with_a_filter_too_it_does_not_matter_how_the_sound_was_cut(tmp_path: Path) -> None:
    release = with_filter(make_listening_release(tmp_path / "made"), 0.7)
    sound = np.concatenate((noise(0.6, 1, 0.001), noise(0.4, 2, 0.2), noise(0.5, 3, 0.001)))
    whole = _listening(release)
    expected = whole.push(Heard(sound, 0, True))
    parts = _listening(release)
    cuts = [0, 1, 255, 256, 257, 5000, 5001, 12000, len(sound)]
    found = [
        step
        for first, last in pairwise(cuts)
        for step in parts.push(Heard(sound[first:last], first, first == 0))
    ]
    assert [(s.number, s.end, s.scores.tobytes(), s.hits) for s in found] == [
        (s.number, s.end, s.scores.tobytes(), s.hits) for s in expected
    ]
    assert [hit.label for step in expected for hit in step.hits] == ["loud"]
    late = (len(sound) - expected[-1].end) / 16000
    assert late < 0.032 + 0.03, "a window of the filter, and what a step waits for"
    whole.close()
    parts.close()


def _listening(release: DeviceRelease) -> Listening:
    points = Points(release.manifest, release.blobs, PROFILE)
    point, artifact, engine = points.open(0)
    filtered = points.open_filter(point)
    assert filtered is not None
    assert release.manifest.task.sound is not None
    spec, its, cleans = filtered
    return Listening(
        StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states),
        release.manifest.task.sound,
        cleaner=SpeechFilter(StreamSession(cleans, its.inputs, its.outputs, its.states), spec),
    )


def test_a_network_of_other_bands_is_no_filter(tmp_path: Path) -> None:
    release = with_filter(make_listening_release(tmp_path / "made"), 1.0)
    points = Points(release.manifest, release.blobs, PROFILE)
    found = points.open_filter(points.ladder[0])
    assert found is not None
    _, artifact, engine = found
    session = StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states)
    with pytest.raises(ContractError) as caught:
        SpeechFilter(session, EnhanceSpec(bands=64, single_bins=32))
    assert caught.value.slug == "model-input"
    session.close()
