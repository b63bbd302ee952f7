"""Trusted metadata on the device's disk: power cuts, damage, and provisioning anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.update.trust_store import TrustStore
from edge_sdk.bundle.trust import trust_root
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import StorageError
from tests.fakes.tuf_repository import KEYS, Repository
from tests.fakes.tuf_rig import TufRig, rig_with
from tests.fakes.updating import FLEET_KEY, tiny_release

ONE = tiny_release("1", size=3000)
TWO = tiny_release("2", size=3000)


class PowerCutError(Exception):
    """The power goes."""


class CuttingStorage(DiskStorage):
    """Loses power before the ``at``-th durable step that concerns metadata."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, name: str, path: Path) -> None:
        if path.parent.name == "tuf":
            self.left -= 1
            if self.left == 0:
                raise PowerCutError


@pytest.mark.parametrize("at", range(1, 25))
def test_power_cut_at_every_step_of_a_refresh(tmp_path: Path, at: int) -> None:
    """Nothing older is believed afterwards than before, what is committed serves, and it ends."""
    rig = rig_with(tmp_path, ONE)
    before = rig.versions
    rig.repo.replace_key("timestamp", KEYS[8])
    rig.add(TWO)
    rig.wish = rig.wished(TWO, 2)
    cut = False
    try:
        rig.boot(CuttingStorage(at))
        rig.run_for(10)
    except PowerCutError:
        cut = True
    rig.boot(connected=False)
    after = rig.versions
    assert after["root"] >= before["root"]
    assert after["snapshot"] >= before["snapshot"]
    assert after["targets"] >= before["targets"]
    assert rig.host.serving is not None
    rig.connect()
    rig.run_for(20)
    assert rig.version == "2"
    assert rig.versions["root"] == 2
    assert cut or at > 12


def test_damaged_files_are_fetched_again_and_nothing_stops(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, ONE)
    for path in (tmp_path / "tuf").glob("*.json"):
        path.write_bytes(b"rotten")
    rig.boot(connected=False)
    assert rig.version == "1"
    assert rig.versions == {"root": 1, "timestamp": 0, "snapshot": 0, "targets": 0}
    rig.add(TWO)
    rig.wish = rig.wished(TWO, 2)
    rig.connect()
    rig.run_for(15)
    assert rig.version == "2"


def test_lost_state_is_salvaged_by_the_trusted_targets(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, ONE)
    for name in ("state.json", "state.json.1"):
        (tmp_path / name).write_bytes(b"rotten")
    rig.boot(connected=False)
    assert rig.version == "1"


def test_another_root_in_the_trust_file_begins_anew(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, ONE)
    other = Repository(fleet=FLEET_KEY)
    other.replace_key("snapshot", KEYS[9])
    second = TufRig(tmp_path, repo=other)
    second.trust = trust_root([], [], root=other.files["2.root"])
    second.behaviours = rig.behaviours
    second.boot(connected=False)
    assert second.version == "1"
    assert second.versions == {"root": 2, "timestamp": 0, "snapshot": 0, "targets": 0}


def test_a_full_disk_holds_nothing_up(tmp_path: Path) -> None:
    class Full(DiskStorage):
        def write(self, path: Path, data: bytes) -> None:
            raise StorageError("disk-full", f"No space for {path}.", "")

    repo = Repository(fleet=FLEET_KEY)
    trusted = TrustStore(tmp_path, Full()).load(repo.anchor)
    assert trusted.root.version == 1


def test_the_floor_is_not_written_for_every_message(tmp_path: Path) -> None:
    repo = Repository(fleet=FLEET_KEY)
    store = TrustStore(tmp_path, DiskStorage())
    store.load(repo.anchor)
    for floor_s in (5000.0, 5001.0, 8599.0):
        store.save_floor(floor_s)
    assert store.floor_s == 5000.0
    store.save_floor(0.0)
    again = TrustStore(tmp_path, DiskStorage())
    again.load(repo.anchor)
    assert again.floor_s == 0.0
