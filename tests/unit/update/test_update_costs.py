"""What an update is said to have cost, against what really moved."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.update.costs import Plan, Reading, charged, planned
from agent.update.metering import CHECKPOINT_S
from edge_sdk.contracts.base import decode
from edge_sdk.contracts.update import Phase, UpdateCosts
from tests.fakes.updating import Rig, TinyRelease, desired_bytes, tiny_release

V1 = tiny_release("1", size=200_000)
V2 = tiny_release("2", size=200_000, packed=True)
LARGE = tiny_release("8", size=40 * 65536 + 17)
SIZES = st.integers(0, 10**9)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    for release in (V1, V2, LARGE):
        rig.publish(release)
    rig.boot()
    return rig


def whole(release: TinyRelease) -> int:
    """Bytes of a release whose files all travel whole."""
    sizes = {digest: len(data) for digest, data in release.blobs.items()}
    built = release.manifest.derived
    files = {file for a in release.manifest.artifacts.values() for file in (a.digest, a.golden)}
    each = (built[file].size_bytes if file in built else sizes[file] for file in files)
    return len(release.envelope) + sum(each)


def carried(release: TinyRelease) -> int:
    return sum(len(data) for _, data in release.everything)


def test_a_first_install_receives_everything_once(rig: Rig) -> None:
    rig.want(desired_bytes(V1, 1))
    costs = rig.settle()
    assert costs.bytes_offered == costs.bytes_total == costs.bytes_received == carried(V1)
    assert (costs.bytes_reused, costs.bytes_saved_recipes, costs.bytes_saved_delta) == (0, 0, 0)
    assert costs.bytes_written > carried(V1)
    assert costs.chunk_retries == 0


def test_what_recipes_save_is_told(rig: Rig) -> None:
    rig.want(desired_bytes(V2, 1))
    costs = rig.settle()
    assert costs.bytes_offered == whole(V2)
    assert costs.bytes_received == costs.bytes_total == carried(V2)
    assert costs.bytes_saved_recipes == whole(V2) - carried(V2) > 60_000


def test_the_time_of_every_phase_is_told(rig: Rig) -> None:
    rig.sensors.battery = 1.0
    rig.want(desired_bytes(V1, 1))
    began = rig.clock.time
    for _ in range(200):
        rig.turn()
    rig.sensors.battery = None
    costs = rig.settle()
    assert sum(costs.seconds_in.values()) == pytest.approx(rig.clock.time - began, abs=0.3)
    assert costs.seconds_in["preflight"] == pytest.approx(40.0, abs=6.0)
    assert set(costs.seconds_in) == {
        "offered",
        "preflight",
        "downloading",
        "verifying",
        "golden",
        "trial",
    }


def test_waiting_without_news_is_told_once(rig: Rig) -> None:
    rig.sensors.battery = 1.0
    rig.want(desired_bytes(V1, 1))
    for _ in range(3):
        rig.turn()
    rig.reports.clear()
    for _ in range(500):
        rig.turn()
    assert rig.reports == []


def test_restarts_do_not_turn_what_came_into_what_was_there(rig: Rig) -> None:
    rig.want(desired_bytes(LARGE, 1))
    restarts = 0
    while rig.updater.state.phase in {Phase.OFFERED, Phase.PREFLIGHT, Phase.DOWNLOADING}:
        for _ in range(3):
            rig.turn()
        rig.boot()
        restarts += 1
        assert restarts < 100
    assert restarts > 3
    costs = rig.settle()
    assert costs.bytes_reused == 0
    assert costs.bytes_received == carried(LARGE)


def test_long_phases_are_written_down_now_and_then(rig: Rig) -> None:
    rig.sensors.battery = 1.0
    rig.want(desired_bytes(V1, 1))
    for _ in range(round(CHECKPOINT_S)):
        rig.turn(1.5)
    rig.boot()
    assert rig.updater.state.costs.seconds_in["preflight"] >= CHECKPOINT_S


def test_a_superseded_update_tells_its_own_costs(rig: Rig) -> None:
    rig.want(desired_bytes(LARGE, 1))
    rig.reach(Phase.TRIAL)
    rig.want(desired_bytes(V1, 2))
    told = [status for status in rig.reports if status.code == "trust.superseded"]
    assert [status.bytes_received for status in told] == [carried(LARGE)]
    assert rig.settle().bytes_received == carried(V1)


def test_states_and_statuses_of_earlier_versions_are_read(rig: Rig) -> None:
    assert decode(b'{"bytes_received":5}', UpdateCosts, "costs").bytes_written == 0


@given(
    offered=SIZES,
    recipes=SIZES,
    delta=SIZES,
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=200, deadline=None)
def test_the_sums_fit_together(
    offered: int, recipes: int, delta: int, shares: tuple[float, float, float]
) -> None:
    """Planned, partly fetched, cut, and planned again."""
    total = max(0, offered - recipes - delta)
    saved_delta = min(delta, offered - total)
    before, came, gone = (round(share * total) for share in shares)
    came = min(came, total - before)
    plan = Plan(offered, total, total - before, saved_delta)
    costs = planned(UpdateCosts(), plan)
    assert costs.bytes_reused == before
    saved = costs.bytes_saved_recipes + costs.bytes_saved_delta
    assert costs.bytes_offered == costs.bytes_total + saved
    there = max(0, before + came - gone)
    again = planned(costs, Plan(offered, total, total - there, saved_delta))
    if offered:
        assert again.bytes_reused <= before
        assert again.bytes_received + again.bytes_reused >= there
        assert gone or again.bytes_received == came


@given(readings=st.lists(st.tuples(st.floats(0, 1e6), SIZES, SIZES, SIZES), min_size=2))
@settings(max_examples=100, deadline=None)
def test_booking_in_steps_adds_up(readings: list[tuple[float, int, int, int]]) -> None:
    columns = [sorted(column) for column in zip(*readings, strict=True)]
    steps = [Reading(*row) for row in zip(*columns, strict=True)]
    costs = UpdateCosts()
    for since, now in itertools.pairwise(steps):
        costs = charged(costs, Phase.DOWNLOADING, since, now)
    at_once = charged(UpdateCosts(), Phase.DOWNLOADING, steps[0], steps[-1])
    assert costs.bytes_received == at_once.bytes_received
    assert costs.bytes_written == at_once.bytes_written
    took = costs.seconds_in["downloading"]
    assert took == pytest.approx(at_once.seconds_in["downloading"], abs=len(steps) * 1e-3)
