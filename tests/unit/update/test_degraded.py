"""A release that passes its trial and then gets worse, through the whole updater."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.update.watch import MIN_SAMPLES, SAMPLE_S
from edge_sdk.contracts.update import Phase
from tests.fakes.updating import Behaviour, Rig, desired_bytes, tiny_release

V1, V2, V3 = tiny_release("1"), tiny_release("2"), tiny_release("3")
SOON = MIN_SAMPLES + 3
"""Samples after which a gross change is surely found."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that ran version 1 and now runs version 2, both at 20 ms."""
    rig = Rig(tmp_path)
    for release in (V1, V2, V3):
        rig.publish(release, latency_ms=20.0)
    rig.boot()
    for counter, release in enumerate((V1, V2), 1):
        rig.want(desired_bytes(release, counter))
        rig.settle()
    assert rig.version == "2"
    return rig


def serve(rig: Rig, samples: int) -> None:
    """Let time pass in service."""
    for _ in range(samples):
        rig.turn(SAMPLE_S)


def test_a_release_that_gets_slow_after_its_commit_is_rolled_back(rig: Rig) -> None:
    serve(rig, 200)
    assert rig.version == "2"
    rig.behaviours["2"] = Behaviour(latency_ms=80.0)
    serve(rig, MIN_SAMPLES - 1)
    assert rig.version == "2", "a busy minute is no reason"
    serve(rig, SOON)
    last = rig.reports[-1]
    assert (rig.version, last.phase, last.code) == ("1", Phase.ROLLED_BACK, "gate.degraded")
    assert last.detail == "A frame takes 80.0 ms, 20.0 ms on trial."
    assert rig.host.starts[-1] == "serve 1"

    rig.want(desired_bytes(V2, 3))
    assert (rig.settle().code, rig.version) == ("trust.known-bad", "1")
    rig.behaviours["1"] = Behaviour(latency_ms=300.0)
    serve(rig, 100)
    assert rig.version == "1", "there is nothing proven to go to"
    assert rig.updater.state.active is not None


def test_a_release_that_begins_to_fail_is_rolled_back_over_a_restart(rig: Rig) -> None:
    rig.boot()
    rig.behaviours["2"] = Behaviour(latency_ms=20.0, error_share=0.5)
    serve(rig, SOON)
    assert (rig.version, rig.reports[-1].code) == ("1", "gate.degraded")
    rig.boot()
    assert rig.version == "1"


def test_where_the_release_before_was_slower_it_is_only_told(rig: Rig) -> None:
    rig.publish(V3, latency_ms=4.0)
    rig.want(desired_bytes(V3, 3))
    rig.settle()
    rig.behaviours["3"] = Behaviour(latency_ms=15.0)
    rig.reports.clear()
    serve(rig, 5 * SOON)
    assert rig.version == "3"
    assert [(told.phase, told.code) for told in rig.reports] == [(Phase.COMMITTED, "gate.degraded")]


@pytest.mark.parametrize("disturbance", ["hot", "full"])
def test_heat_and_other_programs_condemn_nothing(rig: Rig, disturbance: str) -> None:
    setattr(rig.sensors, disturbance, True)
    rig.behaviours["2"] = Behaviour(latency_ms=80.0)
    serve(rig, 5 * SOON)
    assert rig.version == "2"
    setattr(rig.sensors, disturbance, False)
    serve(rig, SOON)
    assert rig.version == "1"


def test_a_release_that_was_put_on_trial_by_an_older_agent_is_not_watched(rig: Rig) -> None:
    state = rig.folder / "state.json"
    text = state.read_text()
    assert '"probation"' in text
    state.write_text(text.replace('"probation"', '"unknown_of_earlier"'))
    rig.boot()
    rig.behaviours["2"] = Behaviour(latency_ms=80.0)
    serve(rig, SOON)
    assert rig.version == "2"
