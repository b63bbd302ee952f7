"""What updates cost, from a device's word to the page, the metrics and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk.accounting import added, in_words, times_in_words
from edge_sdk.contracts.fleet import RolloutRequest
from edge_sdk.contracts.update import Phase, UpdateCosts
from edge_sdk.server.metrics import cost_families
from tests.fakes.fleet_db import FleetOnDisk

ONE = UpdateCosts(
    bytes_offered=9_000_000,
    bytes_received=2_000_000,
    bytes_total=5_000_000,
    bytes_reused=3_000_000,
    bytes_saved_recipes=4_000_000,
    bytes_written=2_100_000,
    chunk_retries=2,
    seconds_in={"downloading": 10.0, "trial": 2.5, "golden": 0.01},
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[FleetOnDisk]:
    fleet = FleetOnDisk(tmp_path)
    yield fleet
    fleet.close()


def test_a_device_s_costs_are_kept_with_its_rollout(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    here.fleet.rolling.create(RolloutRequest(release="digits", version="1"))
    figures = {name: getattr(ONE, name) for name in UpdateCosts.__struct_fields__}
    invented = {f"phase {number}": 1.0 for number in range(1000)}
    figures["seconds_in"] = {**ONE.seconds_in, **invented}
    here.status("a", Phase.DOWNLOADING, **figures)
    here.status("a", Phase.COMMITTED)  # an older agent's word takes nothing back
    (member,) = here.fleet.rolling.rollout("latest").members
    assert {name: getattr(member, name) for name in UpdateCosts.__struct_fields__} == {
        name: getattr(ONE, name) for name in UpdateCosts.__struct_fields__
    }


def test_the_metrics_add_all_devices_up(here: FleetOnDisk) -> None:
    here.publish("1")
    for device in ("a", "b"):
        here.state(device)
    here.fleet.rolling.create(RolloutRequest(release="digits", version="1"))
    for device in ("a", "b"):
        here.status(device, Phase.TRIAL, bytes_received=7, seconds_in={"trial": 1.5})
    families = {
        family.name: family for family in cost_families(here.fleet.rolling.rollout("latest"))
    }
    received = [s for s in families["edge_rollout_bytes"].samples if s.labels["kind"] == "received"]
    assert [sample.value for sample in received] == [14]
    (trial,) = families["edge_rollout_phase_seconds"].samples
    assert (trial.labels["phase"], trial.value) == ("trial", 3.0)


def test_costs_in_words() -> None:
    assert in_words(UpdateCosts()) == times_in_words(UpdateCosts()) == ""
    assert in_words(added([ONE, ONE])) == (
        "4.00 MB received for 18.00 MB offered, 6.00 MB were there already,"
        " 8.00 MB saved by recipes, 4.20 MB written to flash, 4 chunks asked for again."
    )
    assert times_in_words(ONE) == "12.5 s: downloading 10, trial 2.5"
