"""What a server can take back from a real agent, and that garbage takes nothing back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.publish as paho_publish
import pytest

from edge_sdk.contracts.fleet import MemberStatus, RolloutState
from edge_sdk.contracts.topics import Topics
from edge_sdk.contracts.update import Phase, TrialPolicy
from tests.fakes.brokers import RunningBroker, broker  # noqa: F401 - a fixture
from tests.fakes.house import TENANT, FleetHouse, wait_until

ENDLESS = TrialPolicy(min_frames=10_000_000, max_frames=20_000_000, max_seconds=3600.0)


@pytest.fixture
def house(tmp_path: Path, broker: RunningBroker) -> Iterator[FleetHouse]:  # noqa: F811
    house = FleetHouse(tmp_path, broker)
    try:
        yield house
    finally:
        house.stop()


def test_an_open_offer_survives_garbage_and_ends_when_it_is_withdrawn(house: FleetHouse) -> None:
    house.add_device("d1")
    house.start_agent("d1")
    house.publish("1")
    rollout = house.roll_out("1", "d1", trial=ENDLESS)
    wait_until(lambda: house.device("d1").phase == Phase.TRIAL, 60.0, "the trial")
    topic = Topics(TENANT).desired("d1")
    paho_publish.single(topic, b"garbage", qos=1, hostname="127.0.0.1", port=house.broker.port)
    with house.client() as client:
        wait_until(
            lambda: any(e.kind == "refusal" for e in client.events(0, 1000)), 60.0, "a refusal"
        )
        info = client.rollout(rollout)
        assert (info.state, info.members[0].status) == (RolloutState.FULL, MemberStatus.OFFERED)
        info = client.rollback()
        assert info.state is RolloutState.ROLLED_BACK
        assert info.members[0].status is MemberStatus.KEPT
        assert info.members[0].detail == "nothing to go back to"
        wait_until(lambda: client.device("d1").version == "", 60.0, "the trial to be abandoned")
        assert client.device("d1").phase != Phase.COMMITTED
    # The device is free for what comes next.
    assert house.wait_for_end(house.roll_out("1", "d1"), "d1") == "committed"
    house.wait_for_version("d1", "1")
