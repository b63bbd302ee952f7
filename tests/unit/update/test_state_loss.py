"""Damaged state files: a release that works must outlive them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agent.update.state import UpdateState
from agent.update.store import MAX_DAMAGED
from agent.update.trust import Device
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.update import Phase
from tests.fakes.updating import Rig, desired_bytes, tiny_release

V1, V2, V3 = (tiny_release(version, size=70_000) for version in "123")
GARBAGE = b'{"schema": 1, "slots": '
FILES = ("state.json", "state.json.1")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that serves version 2 and can fall back to version 1."""
    rig = Rig(tmp_path)
    for release in (V1, V2, V3):
        rig.publish(release)
    rig.boot()
    for counter, release in enumerate((V1, V2), start=1):
        rig.want(desired_bytes(release, counter))
        rig.settle()
    return rig


def damage(rig: Rig, *names: str, content: bytes = GARBAGE) -> None:
    for name in names:
        (rig.folder / name).write_bytes(content)


def blobs(rig: Rig) -> set[str]:
    return {path.name for path in (rig.folder / "blobs").iterdir()}


def damaged_files(rig: Rig) -> list[Path]:
    return sorted(rig.folder.glob("state.damaged-*.json"))


@pytest.mark.parametrize("content", [GARBAGE, b"", bytes(600), b'{"active": "a"}'])
def test_the_state_before_takes_over(rig: Rig, content: bytes) -> None:
    held = blobs(rig)
    damage(rig, "state.json", content=content)
    rig.boot(connected=False)
    assert rig.host.serving is not None
    assert rig.updater.state.counter == 2
    assert [path.read_bytes() for path in damaged_files(rig)] == [content]
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.version == "2"
    assert blobs(rig) == held
    assert decode((rig.folder / "state.json").read_bytes(), UpdateState, "state").counter == 2


def test_the_state_before_knows_of_a_first_commit(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.publish(V1)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.settle()
    damage(rig, "state.json")
    rig.boot(connected=False)
    assert (rig.version, rig.updater.state.phase) == ("1", Phase.COMMITTED)
    assert rig.host.starts == ["serve 1"], "nothing is on trial again"


def test_what_is_remembered_as_bad_outlives_a_damaged_state(rig: Rig) -> None:
    rig.publish(V3, accuracy=0.3)
    rig.want(desired_bytes(V3, 3))
    assert rig.settle().phase is Phase.ROLLED_BACK
    rig.want(desired_bytes(V2, 4))
    damage(rig, "state.json")
    rig.boot()
    assert {V3.digest} <= set(rig.updater.state.bad)


@pytest.mark.parametrize("gone", [False, True], ids=["damaged", "missing"])
def test_a_release_is_recovered_when_both_states_are_lost(rig: Rig, gone: bool) -> None:
    held = blobs(rig)
    for name in FILES:
        (rig.folder / name).unlink() if gone else damage(rig, name)
    rig.boot(connected=False)
    assert rig.version == "1", "what was wished last may not have proven itself yet"
    assert rig.host.serving == rig.updater.active
    assert rig.updater.state.counter == 2
    assert blobs(rig) == held, "nothing is deleted by a device that does not know what it needs"
    rig.updater.on_desired(desired_bytes(V1, 1))
    assert rig.reports[-1].code == "trust.replayed"
    received = rig.received
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert (rig.version, rig.received) == ("2", received)
    assert blobs(rig) == rig.updater.state.referenced() == held


def test_a_lone_release_is_recovered_even_if_it_was_wished_last(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.publish(V1)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.settle()
    damage(rig, *FILES)
    rig.boot(connected=False)
    assert rig.version == "1"


def test_only_whole_releases_are_recovered(rig: Rig) -> None:
    damage(rig, *FILES)
    victim = rig.folder / "blobs" / next(iter(V1.blobs))
    victim.write_bytes(bytes(victim.stat().st_size))
    rig.boot(connected=False)
    assert rig.version == "2"


def test_nothing_is_deleted_when_nothing_can_be_recovered(rig: Rig) -> None:
    for release in (V1, V2):
        (rig.folder / "blobs" / release.digest).unlink()
    held = blobs(rig)
    damage(rig, *FILES)
    for _ in range(2):
        rig.boot(connected=False)
        assert rig.updater.active is None
        assert blobs(rig) == held
    received = rig.received
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.received - received == len(V2.envelope)


def test_damaged_states_are_kept_apart_and_bounded(rig: Rig) -> None:
    for number in range(MAX_DAMAGED + 2):
        damage(rig, "state.json", content=b"%d" % number)
        rig.boot()
    kept = [path.read_bytes() for path in damaged_files(rig)]
    assert kept == [b"%d" % number for number in range(2, MAX_DAMAGED + 2)]


def test_a_folder_under_another_name_keeps_its_releases_only(rig: Rig) -> None:
    rig.publish(V3, accuracy=0.3)
    rig.want(desired_bytes(V3, 7))
    rig.settle()
    assert rig.updater.state.bad
    rig.wish = b""
    rig.device = Device("cam-9", rig.device.profile_id, rig.device.runtimes)
    rig.boot()
    state = rig.updater.state
    assert rig.version == "2"
    assert (state.counter, state.bad, state.desired, state.phase) == (-1, (), None, Phase.IDLE)
    rig.want(desired_bytes(V1, 1, device_id="cam-9"))
    assert rig.settle().phase is Phase.COMMITTED
    stored = json.loads((rig.folder / "state.json").read_bytes())
    assert (stored["device_id"], stored["tenant"]) == ("cam-9", "t1")


def test_a_state_of_an_earlier_version_is_adopted(rig: Rig) -> None:
    path = rig.folder / "state.json"
    state = msgspec.json.decode(path.read_bytes())
    for name in ("device_id", "tenant", "salvaged"):
        state.pop(name)
    path.write_bytes(json.dumps(state).encode())
    rig.boot()
    assert rig.version == "2"
    assert (rig.updater.state.counter, rig.updater.state.device_id) == (2, "cam-1")
    assert decode(encode(rig.updater.state), UpdateState, "state") == rig.updater.state
