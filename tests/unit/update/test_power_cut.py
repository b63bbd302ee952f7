"""The power fails, or the disk is full, at every durable step of an update, good or bad.

After each fault the agent is rebuilt from the disk and left alone. It must always have something
to serve, must never serve what is not verified (the host checks at every start), and must end in
the right version.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_sdk.contracts.update import FINAL_PHASES, Phase
from tests.fakes.storage import FaultyStorage, PowerCut
from tests.fakes.updating import Rig, TinyRelease, desired_bytes, tiny_release

OLD = tiny_release("1", size=70_000)
NEW = tiny_release("2", size=70_000, packed=True, base=OLD)
"""One of its files comes as a delta, and another is built from that one."""
WISH_OLD, WISH_NEW = desired_bytes(OLD, 1), desired_bytes(NEW, 2)


@dataclass(frozen=True)
class Case:
    """A way for version 2 to behave, and where that must end."""

    behaviour: dict[str, object]
    version: str
    phase: Phase


CASES = {
    "good": Case({}, "2", Phase.COMMITTED),
    "golden-fails": Case({"golden_ok": False}, "1", Phase.REJECTED),
    "trial-fails": Case({"accuracy": 0.5}, "1", Phase.ROLLED_BACK),
    "crash-loops": Case({"crash_loops": True}, "1", Phase.ROLLED_BACK),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a device that serves version 1."""
    folder = tmp_path_factory.mktemp("device")
    rig = rig_on(folder, Case({}, "1", Phase.COMMITTED))
    rig.boot()
    rig.want(WISH_OLD)
    rig.settle()
    assert rig.version == "1"
    return folder


def rig_on(folder: Path, case: Case) -> Rig:
    rig = Rig(folder)
    rig.publish(OLD)
    rig.publish(NEW, **case.behaviour)
    return rig


def update(rig: Rig, storage: FaultyStorage) -> None:
    """Boot on what is there and update to version 2, as far as the power lasts."""
    rig.wish = WISH_NEW
    rig.boot(storage)
    always_servable(rig)
    for _ in range(600):
        rig.turn()
        always_servable(rig)
        if rig.updater.state.phase in FINAL_PHASES and rig.updater.state.counter == 2:
            return
    raise AssertionError(f"not settled: {rig.updater.state.phase}")


def always_servable(rig: Rig) -> None:
    assert rig.host.serving is not None
    assert rig.updater.active is not None


def steps_of(folder: Path, scratch: Path, case: Case) -> int:
    """How many durable steps the update takes when nothing goes wrong."""
    storage = FaultyStorage()
    update(rig_on(fresh(folder, scratch), case), storage)
    return storage.steps


def fresh(folder: Path, scratch: Path) -> Path:
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch)
    return scratch


def check_end(rig: Rig, case: Case) -> None:
    assert rig.version == case.version, rig.reports[-3:]
    assert rig.host.serving == rig.updater.active
    assert rig.host.committed
    tidy(rig, OLD if case.version == "1" else NEW)


def tidy(rig: Rig, active: TinyRelease) -> None:
    """Nothing lies about that no slot refers to."""
    state = rig.updater.state
    found = {path.name for path in (rig.folder / "blobs").iterdir()}
    assert found == state.referenced()
    deltas = {each.delta for each in active.manifest.deltas}
    assert {active.digest, *active.blobs} - deltas <= found
    assert list((rig.folder / "parts").glob("*")) == []
    manifests = {path.stem for path in (rig.folder / "manifests").iterdir()}
    assert manifests == {record.digest for record in state.slots.values()}


def cuts(count: int) -> Iterator[tuple[int, int]]:
    """Every step once; and every third with a second cut soon after the restart."""
    for first in range(1, count + 1):
        yield first, 0
        if first % 3 == 0:
            yield first, 1 + first % 7


@pytest.mark.parametrize("forgetful", [False, True], ids=["kill", "power"])
@pytest.mark.parametrize("name", CASES)
def test_power_cut_at_every_durable_step(
    name: str, forgetful: bool, installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, tally = CASES[name], Counter[str]()
    count = steps_of(installed, tmp_path / "device", case)
    assert count > 30
    for first, second in cuts(count):
        rig = rig_on(fresh(installed, tmp_path / "device"), case)
        for cut in (first, second):
            if cut:
                with pytest.raises(PowerCut):
                    update(rig, FaultyStorage(cut, forgetful=forgetful))
                    raise PowerCut  # the second boot may need fewer steps than the cut is at
        update(rig, FaultyStorage())
        check_end(rig, case)
        assert rig.updater.state.phase is case.phase
        tally[f"{name}: active {rig.version}"] += 1
    with capsys.disabled():
        print(f"\n  {'power cut' if forgetful else 'kill'}: {dict(tally)} of {count} steps", end="")


@pytest.mark.parametrize("name", CASES)
def test_disk_full_at_every_durable_step(
    name: str, installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The update may be refused, but the old release serves on and a later attempt succeeds."""
    case, tally = CASES[name], Counter[str]()
    count = steps_of(installed, tmp_path / "device", case)
    for stays_full in (False, True):
        for full_at in range(1, count + 1):
            rig = rig_on(fresh(installed, tmp_path / "device"), case)
            storage = FaultyStorage(full_at=full_at, stays_full=stays_full)
            settle_on_full_disk(rig, storage)
            tally[rig.updater.state.phase] += 1
            storage.full_at = 0
            retry(rig, case)
    with capsys.disabled():
        print(f"\n  disk full, {name}: {dict(tally)} in {2 * count} cases", end="")


def settle_on_full_disk(rig: Rig, storage: FaultyStorage) -> None:
    rig.wish = WISH_NEW
    rig.boot(storage)
    for _ in range(300):
        rig.turn()
        always_servable(rig)
        if rig.updater.state.phase in FINAL_PHASES and not rig.host.golden:
            break


def retry(rig: Rig, case: Case) -> None:
    """With room again, a new deployment of the same release ends where it should."""
    rig.turn()
    rig.want(desired_bytes(NEW, 3))
    rig.settle()
    known_bad = rig.updater.state.code == "trust.known-bad"
    assert known_bad or rig.updater.state.phase is case.phase, rig.reports[-1]
    assert rig.version == case.version
    assert rig.host.serving == rig.updater.active
