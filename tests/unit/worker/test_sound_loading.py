"""What a listener that cannot be loaded had opened before is closed again."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.pipelines.config import PipelineConfig, SourceConfig
from agent.sound.config import SoundConfig
from agent.worker.channel import Channel
from agent.worker.options import ServeOptions
from agent.worker.points import Points
from agent.worker.serve_sound import SoundLoop
from edge_sdk.contracts.audio import EnhanceSpec, SoundInfo
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.errors import EdgeError
from edge_sdk.runtime.engine import Engine
from edge_sdk.runtime.tensors import probing_input
from tests.fakes.classifiers import PROFILE, DeviceRelease
from tests.fakes.listeners import HEARS, LOUD, make_listening_release, with_filter


class Opened(Points):
    """Remembers every engine that it opens."""

    engines: list[Engine]

    def open(
        self, index: int, before_open: Callable[[], None] = lambda: None
    ) -> tuple[OperatingPoint, Artifact, Engine]:
        found = super().open(index, before_open)
        self.engines.append(found[2])
        return found

    def open_filter(self, point: OperatingPoint) -> tuple[EnhanceSpec, Artifact, Engine] | None:
        found = super().open_filter(point)
        assert found is not None
        self.engines.append(found[2])
        return found


def engines_of_a_refused_load(
    release: DeviceRelease, sound: SoundInfo, start_point: int, code: str
) -> list[Engine]:
    points = Opened(release.manifest, release.blobs, PROFILE)
    points.engines = []
    pipeline = PipelineConfig(
        name="listens",
        source=SourceConfig(kind="stdin"),
        sound=SoundConfig(verify=start_point > 0),
    )
    options = ServeOptions(pipeline, start_point, hold=True, stats_interval_s=1.0)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(EdgeError) as refused:
        SoundLoop(points, sound, Channel(theirs), options).run()
    assert refused.value.code == code
    return points.engines


def is_closed(engine: Engine) -> bool:
    try:
        engine.run([probing_input(spec) for spec in engine.inputs])
    except EdgeError as error:
        return error.code == "runtime.closed"
    return False


def test_a_filter_is_closed_when_the_network_behind_it_does_not_fit(tmp_path: Path) -> None:
    release = with_filter(make_listening_release(tmp_path), 1.0)
    fields = {name: getattr(LOUD, name) for name in LOUD.__struct_fields__}
    two = SoundInfo(**{**fields, "labels": ("loud", "quiet")})
    network, cleaner = engines_of_a_refused_load(release, two, 0, "contract.model-output")
    assert is_closed(cleaner)
    assert is_closed(network)


def test_a_second_stage_is_closed_when_the_first_is_refused(tmp_path: Path) -> None:
    release = with_filter(make_listening_release(tmp_path, (HEARS, HEARS + 0.5)), 1.0)
    cheap = release.manifest.ladders[PROFILE][1].artifact
    (release.blobs / cheap).write_bytes(b"damaged")
    engines = engines_of_a_refused_load(release, LOUD, 1, "trust.blob-damaged")
    assert len(engines) == 2
    assert all(is_closed(engine) for engine in engines)
