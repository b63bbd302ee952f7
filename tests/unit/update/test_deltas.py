"""Updates by delta: fewer bytes, the same file, and never an update less."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.update.machine import MAX_REBUILDS
from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.signing import sign
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import MANIFEST_TYPE
from edge_sdk.contracts.update import Phase, UpdateStatus
from edge_sdk.delta.find import DeltaBase
from edge_sdk.delta.program import Fresh, Program
from edge_sdk.delta.wire import write_delta
from edge_sdk.durable import DiskStorage
from tests.fakes.storage import PowerCut
from tests.fakes.updating import RELEASE_KEY, Rig, TinyRelease, desired_bytes, tiny_release

OLD = tiny_release("1", size=90_000)
NEW = tiny_release("2", base=OLD)
FULL = len(NEW.model)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that runs release 1."""
    rig = Rig(tmp_path)
    rig.publish(OLD)
    rig.boot()
    rig.want(desired_bytes(OLD, 1))
    rig.settle()
    rig.received = 0
    return rig


def update(rig: Rig, release: TinyRelease, counter: int = 2) -> UpdateStatus:
    rig.publish(release)
    rig.want(desired_bytes(release, counter))
    last = rig.settle()
    assert last.phase is Phase.COMMITTED, last
    assert rig.version == "2"
    stored = rig.folder / "blobs"
    (target,) = {each.target for each in release.manifest.deltas}
    assert (stored / target).read_bytes() == release.model
    kept = {path.name for path in stored.iterdir()}
    assert kept == rig.updater.state.referenced()
    assert not kept & {each.delta for each in release.manifest.deltas}, "no longer needed"
    return last


def rest_of(release: TinyRelease) -> int:
    """Bytes that travel in any case."""
    delta = {each.delta for each in release.manifest.deltas}
    others = {digest: data for digest, data in release.blobs.items() if digest not in delta}
    return len(release.envelope) + sum(map(len, others.values())) - len(release.model)


def phases(rig: Rig) -> list[Phase]:
    found: list[Phase] = []
    for report in rig.reports:
        if report.version == "2" and report.phase not in found[-1:]:
            found.append(report.phase)
    return found


def test_the_delta_comes_instead_of_the_file(rig: Rig) -> None:
    last = update(rig, NEW)
    (delta,) = (NEW.blobs[each.delta] for each in NEW.manifest.deltas)
    assert len(delta) < FULL / 50
    assert rig.received == rest_of(NEW) + len(delta)
    assert last.bytes_saved_delta == FULL - len(delta)
    assert last.bytes_received == rig.received
    assert last.bytes_offered == last.bytes_total + last.bytes_saved_delta
    assert phases(rig)[2:5] == [Phase.DOWNLOADING, Phase.RECONSTRUCTING, Phase.VERIFYING]
    assert Phase.RECONSTRUCTING in last.seconds_in


def test_a_device_without_the_base_fetches_the_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.boot()
    last = update(rig, NEW, 1)
    assert rig.received == rest_of(NEW) + FULL
    assert last.bytes_saved_delta == 0
    assert Phase.RECONSTRUCTING not in phases(rig)


OTHER = bytearray(OLD.model)
OTHER[1000:3000] = bytes(2000)
RIGHT = NEW.blobs[NEW.manifest.deltas[0].delta]
USELESS = {
    "wrong base": DeltaBase(bytes(OTHER)).delta(NEW.model),
    "base of another size": DeltaBase(OLD.model[:-1]).delta(NEW.model),
    "flipped bit": RIGHT[:-9] + bytes([RIGHT[-9] ^ 16]) + RIGHT[-8:],
    "flipped bit of the program": RIGHT[:30] + bytes([RIGHT[30] ^ 1]) + RIGHT[31:],
    "cut off": RIGHT[: len(RIGHT) // 2],
    "no delta": b"not a delta at all",
    "bomb": write_delta(
        Program(len(OLD.model), FULL, 1, instructions=[Fresh(1 << 24)], literals=bytes(1 << 24))
    ),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_useless_delta_costs_its_own_bytes_only(rig: Rig, name: str) -> None:
    delta = USELESS[name]
    assert delta is not None
    release = tiny_release("2", base=OLD, delta=delta)
    assert release.model == NEW.model
    tracemalloc.start()
    try:
        last = update(rig, release)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert rig.received == rest_of(release) + len(delta) + FULL
    assert last.bytes_received == rig.received
    assert last.bytes_saved_delta == 0
    assert last.bytes_offered == last.bytes_total
    assert any("Fetching whole" in report.detail for report in rig.reports)


def test_a_base_that_rotted_is_noticed(rig: Rig) -> None:
    path = rig.folder / "blobs" / NEW.manifest.deltas[0].base
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert update(rig, NEW).bytes_saved_delta == 0


def test_a_delta_of_a_codec_to_come_is_passed_over(rig: Rig) -> None:
    deltas = tuple(replace(each, codec="edge-delta-9") for each in NEW.manifest.deltas)
    manifest = replace(NEW.manifest, deltas=deltas)
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), RELEASE_KEY))
    assert update(rig, TinyRelease(manifest, envelope, NEW.blobs)).bytes_saved_delta == 0
    assert Phase.RECONSTRUCTING not in phases(rig)


def test_where_there_is_no_room_for_a_delta_beside_its_file(rig: Rig) -> None:
    (delta,) = NEW.manifest.deltas
    size = len(NEW.blobs[delta.delta])
    rig.sensors.free = rest_of(NEW) - len(NEW.envelope) + FULL + size - 1
    assert update(rig, NEW).bytes_saved_delta == 0


def test_of_two_deltas_the_smaller_usable_one_is_taken(rig: Rig) -> None:
    """One is larger, one is for a base that is not here."""
    (right,) = NEW.manifest.deltas
    large = DeltaBase(OLD.model[:50_000]).delta(NEW.model)
    assert large is not None
    digest = "0" * 63 + "1"
    blobs = NEW.blobs | {}
    refs = dict(NEW.manifest.blobs)
    blobs[blob_ref(large).digest], refs[blob_ref(large).digest] = large, blob_ref(large)
    deltas = (
        replace(right, delta=blob_ref(large).digest),
        replace(right, base=digest),
        right,
    )
    manifest = replace(NEW.manifest, deltas=deltas, blobs=refs)
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), RELEASE_KEY))
    last = update(rig, TinyRelease(manifest, envelope, blobs))
    assert last.bytes_saved_delta == FULL - len(RIGHT)


class FailsWhileMaking(DiskStorage):
    """The power goes as soon as the file is begun."""

    def step(self, name: str, path: Path) -> None:
        if name == "piece" and path.name == NEW.manifest.deltas[0].target:
            raise PowerCut


def test_an_agent_that_goes_down_while_it_makes_files_gives_up_deltas(rig: Rig) -> None:
    rig.publish(NEW)
    rig.wish = desired_bytes(NEW, 2)
    for _ in range(MAX_REBUILDS):
        rig.boot(FailsWhileMaking())
        with pytest.raises(PowerCut):
            rig.settle()
    rig.boot()
    last = rig.settle()
    assert last.phase is Phase.COMMITTED
    assert phases(rig).count(Phase.RECONSTRUCTING) == MAX_REBUILDS
    assert last.bytes_saved_delta == 0


def test_sums_hold_over_a_restart_between_making_and_verifying(rig: Rig) -> None:
    rig.publish(NEW)
    rig.want(desired_bytes(NEW, 2))
    rig.reach(Phase.VERIFYING)
    rig.boot()
    last = rig.settle()
    assert last.phase is Phase.COMMITTED
    assert last.bytes_received == rig.received
    assert last.bytes_offered == last.bytes_total + last.bytes_saved_delta
