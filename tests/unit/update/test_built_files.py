"""Updates to releases of which a part is built on the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.update.trust import usable_points
from edge_sdk.bundle.needs import needed_refs
from edge_sdk.contracts.update import Phase
from tests.fakes.updating import DEVICE, Rig, desired_bytes, tiny_release

SIZE = 120_000
PACKED = tiny_release("1", size=SIZE, packed=True)
((MADE, HOW),) = PACKED.manifest.derived.items()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.publish(PACKED)
    rig.boot()
    return rig


def test_only_the_base_and_the_recipe_are_fetched(rig: Rig) -> None:
    rig.want(desired_bytes(PACKED, 1))
    last = rig.settle()
    assert last.phase is Phase.COMMITTED
    whole = tiny_release("1", size=SIZE)
    saved = sum(map(len, whole.blobs.values())) - sum(map(len, PACKED.blobs.values()))
    assert saved > SIZE // 4
    assert rig.received < sum(len(data) for _, data in PACKED.everything) * 1.01
    kept = {path.name for path in (rig.folder / "blobs").iterdir()}
    assert {HOW.base, HOW.recipe} < kept
    assert MADE not in kept, "what is built takes no place on the disk"


def test_the_disk_has_to_hold_what_is_fetched_and_no_more(rig: Rig) -> None:
    points = usable_points(PACKED.manifest, DEVICE.profile_id, DEVICE.runtimes)
    needed = sum(ref.size_bytes for ref in needed_refs(PACKED.manifest, points))
    assert needed < SIZE + SIZE // 10
    rig.sensors.free = needed - 1
    rig.want(desired_bytes(PACKED, 1, deployment="short"))
    assert rig.settle().code == "storage.disk-full"
    rig.sensors.free = needed
    rig.want(desired_bytes(PACKED, 2, deployment="enough"))
    assert rig.settle().phase is Phase.COMMITTED


@pytest.mark.parametrize("lost", [HOW.base, HOW.recipe], ids=["base", "recipe"])
@pytest.mark.parametrize("damaged", [True, False], ids=["damaged", "lost"])
def test_what_rots_is_fetched_again(rig: Rig, lost: str, damaged: bool) -> None:
    rig.want(desired_bytes(PACKED, 1))
    rig.settle()
    path = rig.folder / "blobs" / lost
    good = path.read_bytes()
    if damaged:
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    else:
        path.unlink()
    rig.boot()
    assert rig.settle().phase is Phase.COMMITTED
    assert path.read_bytes() == good


def test_a_lost_state_is_put_together_again(rig: Rig) -> None:
    rig.want(desired_bytes(PACKED, 1))
    rig.settle()
    for name in ("state.json", "state.json.1"):
        (rig.folder / name).write_bytes(b"{")
    rig.boot(connected=False)
    assert rig.version == "1"
