"""What arrives on the desired topic, and what is told about it."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_sdk.contracts.update import Phase
from tests.fakes.updating import OTHER_KEY, Rig, desired_bytes, tiny_release

V1, V2, V3 = tiny_release("1"), tiny_release("2"), tiny_release("3")

STRANGE = {
    "contract.malformed": b"{",
    "trust.bad-signature": desired_bytes(V3, 9, key=OTHER_KEY),
    "trust.other-device": desired_bytes(V3, 9, device_id="cam-2"),
    "trust.replayed": desired_bytes(V3, 1, deployment="again"),
}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that serves version 1."""
    rig = Rig(tmp_path)
    for release in (V1, V2, V3):
        rig.publish(release)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.settle()
    return rig


@pytest.mark.parametrize("code", STRANGE)
@pytest.mark.parametrize("phase", [None, Phase.DOWNLOADING, Phase.TRIAL])
def test_what_is_not_believed_changes_nothing(rig: Rig, code: str, phase: Phase | None) -> None:
    if phase is not None:
        rig.want(desired_bytes(V2, 2))
        rig.reach(phase)
    state, status = rig.updater.state, rig.updater.status
    rig.reports.clear()
    for _ in range(50):
        rig.updater.on_desired(STRANGE[code])
    assert [(told.deployment, told.version, told.code) for told in rig.reports] == [("", "", code)]
    assert replace(rig.updater.state, costs=state.costs) == state
    assert rig.updater.status == status
    rig.clock.time += 61.0
    rig.updater.on_desired(STRANGE[code])
    assert len(rig.reports) == 2
    rig.reports.clear()
    rig.updater.on_disconnected()
    rig.updater.on_connected()
    assert rig.reports == [status], "the device's own last word is what is repeated"


def test_an_offer_that_a_pause_recalled_is_taken_up_when_it_comes_again(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 2, deployment="r2"))
    rig.reach(Phase.DOWNLOADING)
    rig.want(desired_bytes(V1, 3, deployment="r2-restore"))
    rig.settle()
    assert (rig.updater.state.phase, rig.updater.state.counter) == (Phase.COMMITTED, 3)
    superseded = [told for told in rig.reports if told.code == "trust.superseded"]
    assert [(told.deployment, told.counter) for told in superseded] == [("r2", 2)]
    rig.want(desired_bytes(V2, 4, deployment="r2"))
    rig.settle()
    serving = rig.updater.state.serving
    assert serving is not None and serving.version == "2"


def test_a_wish_that_comes_again_under_a_newer_counter_is_answered_under_it(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 2, deployment="r2"))
    rig.reach(Phase.TRIAL)
    rig.reports.clear()
    rig.want(desired_bytes(V2, 4, deployment="r2"))
    rig.settle()
    assert {(told.deployment, told.counter) for told in rig.reports} == {("r2", 4)}
    assert rig.updater.state.phase is Phase.COMMITTED
    rig.want(desired_bytes(V1, 3, deployment="again"))
    assert rig.reports[-1].code == "trust.replayed"


@pytest.mark.parametrize(
    "phase",
    [Phase.OFFERED, Phase.PREFLIGHT, Phase.DOWNLOADING, Phase.VERIFYING, Phase.GOLDEN, Phase.TRIAL],
)
def test_a_withdrawn_update_is_abandoned_and_can_be_resumed(rig: Rig, phase: Phase) -> None:
    if phase is Phase.PREFLIGHT:
        rig.sensors.battery = 1.0
    wish = desired_bytes(V2, 2)
    rig.want(wish)
    rig.reach(phase)
    rig.want(b"")
    expected = Phase.ROLLED_BACK if phase is Phase.TRIAL else Phase.REJECTED
    told = rig.reports[-1]
    assert (told.deployment, told.phase, told.code) == ("d2", expected, "link.withdrawn")
    assert rig.version == "1"
    assert rig.host.serving == rig.updater.active
    assert rig.host.golden is None
    rig.turn(2.0)  # topics are left a little later
    rig.turn()
    assert rig.link.chunks == set()
    assert rig.updater.state.bad == ()
    rig.sensors.battery = None
    rig.boot()
    assert rig.updater.state.code == "link.withdrawn"
    rig.want(wish)
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.version == "2"


def test_withdrawing_touches_nothing_committed(rig: Rig) -> None:
    state, starts = rig.updater.state, list(rig.host.starts)
    rig.reports.clear()
    rig.want(b"")
    rig.turn()
    assert (rig.updater.state, rig.host.starts, rig.reports) == (state, starts, [])


def test_an_older_wish_cannot_use_a_withdrawal(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 5))
    rig.want(b"")
    state = rig.updater.state
    rig.want(desired_bytes(V2, 4, deployment="d5"))
    assert rig.reports[-1].code == "trust.replayed"
    assert rig.updater.state == state


def test_each_step_is_logged_and_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.update")
    rig.reports.clear()
    wish = desired_bytes(V2, 2)
    rig.want(wish)
    rig.settle()
    rig.want(wish)
    rig.want(wish)
    steps = Counter(
        (told.phase, told.detail) for told in rig.reports if told.phase is not Phase.DOWNLOADING
    )
    assert set(steps.values()) == {1}
    lines = Counter(record.getMessage() for record in caplog.records)
    assert set(lines.values()) == {1}, lines
    assert "update 2: trial " in lines
    assert "update 2: downloading " in lines


def test_no_progress_is_told_while_offline(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 2))
    rig.reach(Phase.DOWNLOADING)
    rig.link.drop()
    rig.updater.on_disconnected()
    rig.reports.clear()
    for _ in range(100):
        rig.turn()
    assert rig.reports == []
    rig.connect()
    assert rig.reports[0].phase is Phase.DOWNLOADING
    assert rig.settle().phase is Phase.COMMITTED


def test_a_battery_waited_for_is_told_once(rig: Rig) -> None:
    rig.sensors.battery = 10.0
    rig.want(desired_bytes(V2, 2))
    for _ in range(200):
        rig.turn()
    assert sum("battery" in told.detail for told in rig.reports) == 1
