"""Where retained messages do not reach a device: what it finds out, and whom it asks then."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.update.asking import ANSWER_MAX_S, GRACE_S, Asking
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import BrokerReport, DeliveryMode
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.update import Phase
from tests.fakes.link import FakeBroker, FakeLink
from tests.fakes.tuf_rig import TufRig
from tests.fakes.updating import DEVICE, TOPICS, FakeClock, Rig, desired_bytes, tiny_release

V1 = tiny_release("1", size=400_000)
KEPT, NOT_KEPT = BrokerReport(max_payload_bytes=CHUNK_BYTES), BrokerReport(retained=False)


def broker_says(rig: Rig, report: BrokerReport) -> None:
    rig.broker.retained[TOPICS.broker()] = encode(report)


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize(
    "report",
    [KEPT, NOT_KEPT, BrokerReport(max_payload_bytes=16384)],
    ids=["other-node", "not-kept", "small"],
)
def test_an_update_without_retained_messages(
    tmp_path: Path, report: BrokerReport, loss: float
) -> None:
    rig = Rig(tmp_path)
    rig.publish(V1)
    broker_says(rig, report)
    rig.broker.loss, rig.broker.reorder = loss, bool(loss)
    rig.boot(connected=False)
    rig.link.reach = False
    rig.connect()
    rig.want(desired_bytes(V1, 1))
    assert rig.settle(3000).phase is Phase.COMMITTED
    assert rig.updater.delivery.mode is DeliveryMode.RESPONSE
    if not loss:
        assert rig.received == sum(len(data) for _, data in V1.everything)
        assert rig.broker.requests == []


def test_no_more_is_under_way_than_the_window(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.publish(V1)
    broker_says(rig, NOT_KEPT)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.settle()
    chunks = [[t for t in w.topics if t.startswith("b/")] for w in rig.broker.wishes]
    assert max(map(len, chunks)) <= rig.limits.window
    assert rig.link.chunks == set()


def test_metadata_and_wish_are_asked_for_as_well(tmp_path: Path) -> None:
    rig = TufRig(tmp_path)
    rig.add(V1)
    rig.boot(connected=False)
    rig.link.reach = False
    rig.broker.retained[TOPICS.desired(DEVICE.device_id)] = rig.wished(V1, 1)
    rig.link.connected = True
    rig.updater.on_connected()
    assert rig.settle(2000).phase is Phase.COMMITTED


class Device:
    """An Asking with its fake surroundings."""

    def __init__(self) -> None:
        self.broker, self.clock = FakeBroker(TOPICS), FakeClock()
        self.link = FakeLink(self.broker)
        self.greetings: list[BrokerReport] = []
        self.asking = Asking(self.link, TOPICS, DEVICE.device_id, self.clock, self.greetings.append)

    def say(self, report: BrokerReport) -> None:
        self.broker.retained[TOPICS.broker()] = encode(report)

    def pass_time(self, seconds: float) -> list[tuple[str, bytes]]:
        """Messages that were handed on meanwhile."""
        handed = []
        for _ in range(round(seconds / 0.1)):
            for message in self.link.poll():
                mine = self.asking.on_message(*message)
                if mine is not None:
                    handed.append(mine)
            self.asking.tick()
            self.clock.time += 0.1
        return handed

    @property
    def mode(self) -> DeliveryMode:
        return self.asking.choice.mode


def test_a_kept_report_settles_it_at_once() -> None:
    device = Device()
    device.asking.on_connected()
    device.pass_time(10 * GRACE_S)
    assert device.mode is DeliveryMode.WINDOW
    assert "keeps retained messages" in device.asking.choice.reason
    assert device.broker.wishes == []


def test_without_a_server_nothing_is_concluded_and_little_is_asked() -> None:
    device = Device()
    device.link.reach, device.broker.answers = False, False
    device.asking.on_connected()
    device.pass_time(600)
    assert device.mode is DeliveryMode.WINDOW
    assert 3 < len(device.broker.wishes) < 20
    device.broker.answers = True
    device.pass_time(2 * ANSWER_MAX_S)
    assert device.mode is DeliveryMode.RESPONSE


def test_the_way_back_when_the_broker_keeps_messages_again() -> None:
    device = Device()
    device.link.reach = False
    device.asking.on_connected()
    device.pass_time(2 * GRACE_S)
    assert device.mode is DeliveryMode.RESPONSE
    device.asking.on_disconnected()
    device.asking.on_connected()
    assert device.mode is DeliveryMode.RESPONSE  # as it was, until something else is known
    device.link.reach = True
    device.link.receive(TOPICS.broker(), encode(KEPT))  # the server has come back
    device.pass_time(1.0)
    assert device.greetings == [KEPT]
    assert device.mode is DeliveryMode.WINDOW


def test_a_new_server_is_greeted_without_believing_that_its_words_were_kept() -> None:
    device = Device()
    device.link.reach = False
    device.asking.on_connected()
    device.pass_time(1.0)
    device.link.receive(TOPICS.broker(), encode(KEPT))
    device.pass_time(1.0)
    assert device.greetings == [KEPT]
    device.pass_time(2 * GRACE_S)
    assert device.mode is DeliveryMode.RESPONSE


def test_what_was_not_asked_for_is_not_handed_on() -> None:
    device = Device()
    device.asking.on_connected()
    device.link.subscribed.add(topic := TOPICS.response(DEVICE.device_id, 0, 1, "tuf/head"))
    device.link.receive(topic, b"unasked")
    device.link.receive(TOPICS.broker(), b"{not json")
    device.link.receive(TOPICS.broker(), b"x" * 100_000)
    assert device.pass_time(1.0) == []


def test_an_empty_answer_says_that_there_is_nothing() -> None:
    device = Device()
    device.say(NOT_KEPT)
    device.asking.on_connected()
    device.pass_time(1.0)
    device.asking.subscribe(TOPICS.desired(DEVICE.device_id), 1)
    assert device.pass_time(60.0) == []
    asked = [topic for wish in device.broker.wishes for topic in wish.topics]
    assert asked == [TOPICS.below(TOPICS.desired(DEVICE.device_id))]
