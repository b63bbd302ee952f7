"""Whole updates whose large blobs come from a real HTTP server, however badly it behaves."""

from __future__ import annotations

import hashlib
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.link.http import HttpFetcher
from agent.update.limits import MirrorLimits, UpdateLimits
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.update import Phase
from edge_sdk.durable import DiskStorage
from tests.fakes.mirrors import HABITS, Habit, RangeServer
from tests.fakes.updating import FakeClock, Rig, TinyRelease, desired_bytes, tiny_release

SIZE = 10 * CHUNK_BYTES + 1234
"""Of the one blob that is large enough for the mirror."""
LARGE = MirrorLimits(min_bytes=SIZE // 2, timeout_s=0.4, attempts=2)


class WallClock(FakeClock):
    """Real time: the server is real, too."""

    @property
    def time(self) -> float:
        return 1000.0 + time.monotonic()

    @time.setter
    def time(self, value: float) -> None:
        del value


class Watching(DiskStorage):
    """A disk that no wrong byte reaches."""

    def __init__(self, release: TinyRelease) -> None:
        self.whole = dict(release.everything)
        self.pieces = 0

    def write_at(self, path: Path, offset: int, data: bytes) -> None:
        assert data == self.whole[path.name][offset : offset + len(data)]
        self.pieces += 1
        super().write_at(path, offset, data)


class MirrorRig(Rig):
    """A device with a real HTTP client, that takes a little real time for each turn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clock = WallClock()
        self.fetcher = HttpFetcher(ssl.create_default_context, timeout_s=0.3)

    def _listen(self) -> None:
        time.sleep(0.004)
        super()._listen()


@pytest.fixture
def server() -> Iterator[RangeServer]:
    running = RangeServer({})
    yield running
    running.stop()


def prepare(folder: Path, server: RangeServer) -> tuple[MirrorRig, TinyRelease, Watching]:
    release = tiny_release("1", size=SIZE, mirror=server.url)
    server.blobs = dict(release.blobs)
    rig = MirrorRig(folder, mirror_limits=LARGE)
    rig.publish(release)
    return rig, release, Watching(release)


def large(release: TinyRelease) -> str:
    return next(digest for digest, data in release.blobs.items() if len(data) == SIZE)


@pytest.mark.parametrize("habit", HABITS)
def test_an_update_commits_whatever_the_mirror_does(
    habit: Habit, tmp_path: Path, server: RangeServer, caplog: pytest.LogCaptureFixture
) -> None:
    rig, release, disk = prepare(tmp_path, server)
    server.habit = habit
    rig.boot(disk)
    rig.want(desired_bytes(release, 1))
    with caplog.at_level(logging.INFO):
        assert rig.settle(turns=2500).phase is Phase.COMMITTED
    assert disk.pieces >= 11
    assert {digest for digest, _, _ in server.asked} == {large(release)}
    others = sum(len(data) for _, data in release.everything) - SIZE
    came_by_mqtt = rig.received > others
    sound = habit in ("good", "no_ranges", "closes", "endless", "truncated")
    assert came_by_mqtt is not sound
    assert ("going on over MQTT" in caplog.text) is not sound
    if habit == "good":
        costs = rig.updater.state.costs
        assert costs.bytes_received == sum(len(data) for _, data in release.everything)
        assert len(server.asked) == 1


def test_a_bad_spell_is_survived(tmp_path: Path, server: RangeServer) -> None:
    rig, release, disk = prepare(tmp_path, server)
    server.habit, server.sound_after = "broken", 1
    rig.boot(disk)
    rig.want(desired_bytes(release, 1))
    assert rig.settle(turns=2500).phase is Phase.COMMITTED
    assert rig.received < SIZE


def test_what_the_broker_brought_is_not_asked_of_the_mirror(
    tmp_path: Path, server: RangeServer
) -> None:
    """And the other way round: a restart in the middle costs nothing, whoever brings the rest."""
    rig, release, disk = prepare(tmp_path, server)
    rig.mirror_limits = MirrorLimits(enabled=False)
    rig.limits = UpdateLimits(disk_margin_bytes=0, window=2)
    rig.boot(disk)
    rig.want(desired_bytes(release, 1))
    rig.reach(Phase.DOWNLOADING)
    while disk.pieces < 4:
        rig.turn()
    kept = {p.name: p.read_bytes() for p in (tmp_path / "parts").iterdir()}.get(large(release), b"")
    have = held(kept, release)
    assert have
    # The agent restarts; now there is a mirror, which breaks down after three chunks.
    rig.mirror_limits = LARGE
    server.habit, server.cut_after = "truncated", 3 * CHUNK_BYTES
    rig.boot(disk)
    rig.reach(Phase.DOWNLOADING)
    while disk.pieces < 7:
        rig.turn()
    server.habit = "broken"
    before = rig.received
    assert rig.settle(turns=2500).phase is Phase.COMMITTED
    asked = {
        index
        for _, first, last in server.asked
        for index in range(first // CHUNK_BYTES, -(-last // CHUNK_BYTES))
    }
    assert not asked & have
    total = sum(len(data) for _, data in release.everything)
    # What was on its way when the agent or the mirror went down comes twice, the rest once.
    assert rig.received + server.sent_bytes.total() <= total + 4 * CHUNK_BYTES
    assert rig.received > before


def held(part: bytes, release: TinyRelease) -> set[int]:
    chunks = release.manifest.blobs[large(release)].chunks
    spans = (part[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in range(len(chunks)))
    return {i for i, span in enumerate(spans) if hashlib.sha256(span).hexdigest() == chunks[i]}


def test_the_mirror_goes_on_without_the_broker(tmp_path: Path, server: RangeServer) -> None:
    rig, release, disk = prepare(tmp_path, server)
    server.habit = "silent"
    rig.mirror_limits = MirrorLimits(min_bytes=SIZE // 2, timeout_s=5.0)
    rig.boot(disk)
    rig.want(desired_bytes(release, 1))
    rig.reach(Phase.DOWNLOADING)
    while not server.asked:
        rig.turn()
    rig.link.drop()
    rig.updater.on_disconnected()
    server.habit = "good"
    part = tmp_path / "blobs" / large(release)
    deadline = time.monotonic() + 20
    while not part.exists() and time.monotonic() < deadline:
        rig.turn()
    assert part.exists()
    rig.connect()
    assert rig.settle(turns=2500).phase is Phase.COMMITTED


def test_a_withdrawn_update_ends_the_request(tmp_path: Path, server: RangeServer) -> None:
    rig, release, disk = prepare(tmp_path, server)
    server.habit = "slow"
    rig.mirror_limits = MirrorLimits(min_bytes=SIZE // 2)
    rig.boot(disk)
    rig.want(desired_bytes(release, 1))
    rig.reach(Phase.DOWNLOADING)
    while not server.asked:
        rig.turn()
    rig.want(b"")
    sent = server.sent_bytes.total()
    time.sleep(0.5)
    assert server.sent_bytes.total() <= sent + 200
    server.habit = "good"
    rig.want(desired_bytes(release, 2))
    assert rig.settle(turns=2500).phase is Phase.COMMITTED


def test_an_agent_that_knows_no_mirror_reads_the_same_manifest(tmp_path: Path) -> None:
    release = tiny_release("1", mirror="https://mirror.example/models")
    rig = Rig(tmp_path)
    rig.publish(release)
    rig.boot()
    rig.want(desired_bytes(release, 1))
    assert rig.settle().phase is Phase.COMMITTED
