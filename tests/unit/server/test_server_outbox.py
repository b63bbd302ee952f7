"""The courier: what is sent in which order, and what a lost connection does to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_sdk.contracts.base import decode
from edge_sdk.contracts.delivery import BrokerReport, TopicRequest
from edge_sdk.contracts.fleet import RolloutRequest
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.update import ChunkRequest, Phase
from edge_sdk.delivery import spans
from edge_sdk.delivery.wave import SPAN
from edge_sdk.server.outbox import MAX_PER_REQUEST, Outbox
from tests.fakes.fleet_db import FleetOnDisk


class GatedSender:
    """A broker connection that keeps what it is sent and can be held up or cut."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.open = threading.Event()
        self.open.set()
        self.connected = True

    def send(self, topic: str, payload: bytes, *, retain: bool = True) -> bool:
        self.open.wait(20)
        if not self.connected:
            return False
        self.sent.append((topic, payload))
        if not retain:
            return True
        if payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)
        return True

    def drain(self, timeout_s: float) -> bool:
        return self.connected


@pytest.fixture
def here(tmp_path: Path) -> Iterator[FleetOnDisk]:
    fleet = FleetOnDisk(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def sender() -> GatedSender:
    return GatedSender()


@pytest.fixture
def outbox(here: FleetOnDisk, sender: GatedSender) -> Iterator[Outbox]:
    outbox = Outbox(here.fleet, sender)
    here.fleet.attach(outbox)
    outbox.start()
    yield outbox
    sender.open.set()
    outbox.stop()


def eventually(check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def topics(sender: GatedSender) -> list[str]:
    return [topic for topic, _ in sender.sent]


def roll(here: FleetOnDisk, version: str) -> None:
    here.fleet.rolling.create(RolloutRequest(release="digits", version=version))


def test_chunks_are_there_before_the_offer(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    release = here.publish("1")
    here.state("a")
    roll(here, "1")
    eventually(outbox.idle)
    assert topics(sender)[0] == here.topics.chunk(release.digest, 0)
    assert topics(sender)[-1] == here.topics.desired("a")
    for digest, data in release.everything:
        assert sender.retained[here.topics.chunk(digest, 0)] == data
    assert outbox.chunks_sent == len(release.everything)


def test_an_older_desired_state_never_follows_a_newer(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    here.publish("1")
    here.publish("2")
    here.state("a")
    roll(here, "1")
    here.commit("a")
    eventually(outbox.idle)
    sender.open.clear()  # the offer of version 2 waits behind its chunks...
    roll(here, "2")
    here.status("a", Phase.REJECTED)  # ...when the device is pointed back at version 1
    sender.open.set()
    eventually(outbox.idle)
    message = here.fleet.desired_message("a")
    assert message is not None
    told = [payload for topic, payload in sender.sent if topic == message[0]]
    assert told[-1] == message[1]
    assert len(set(told)) == 2  # version 1, then the way back; the stale offer was never sent


def test_a_new_connection_gets_everything_again(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    release = here.publish("1")
    here.state("a")
    roll(here, "1")
    here.commit("a")
    eventually(outbox.idle)
    before = dict(sender.retained)
    sender.retained.clear()
    outbox.connected()
    eventually(outbox.idle)
    assert sender.retained == before
    assert here.topics.chunk(release.digest, 0) in before


def test_nothing_is_lost_while_the_broker_is_away(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    sender.connected = False
    here.publish("1")
    here.state("a")
    roll(here, "1")
    eventually(outbox.idle)
    assert sender.sent == []
    sender.connected = True
    outbox.connected()
    eventually(outbox.idle)
    assert here.topics.desired("a") in sender.retained


def test_requested_chunks_overtake_the_bulk(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    release = here.publish("1")
    here.state("a")
    sender.open.clear()
    roll(here, "1")
    eventually(lambda: not outbox.idle())
    last = list(release.blobs)[-1]
    eventually(lambda: last in outbox._servable)
    request = ChunkRequest(device_id="a", digest=last, chunks=(0,))
    outbox.chunks(request)
    sender.open.set()
    eventually(outbox.idle)
    wanted = here.topics.chunk(last, 0)
    assert wanted in topics(sender)[:2]
    assert topics(sender).count(wanted) == 1  # and not in its turn once more


def test_requests_for_what_is_not_served_are_ignored(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    release = here.publish("1")
    here.state("a")
    outbox.chunks(ChunkRequest(device_id="a", digest=release.digest, chunks=(0,)))
    roll(here, "1")
    eventually(outbox.idle)
    count = len(sender.sent)
    many = tuple(range(10, 10 + 2 * MAX_PER_REQUEST))
    outbox.chunks(ChunkRequest(device_id="a", digest=release.digest, chunks=(-1, *many)))
    outbox.chunks(ChunkRequest(device_id="a", digest="0" * 64, chunks=(0,)))
    eventually(outbox.idle)
    assert len(sender.sent) == count


def test_what_no_device_needs_is_cleared_but_shared_blobs_stay(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    shared = b"s" * 700
    releases = {version: here.publish(version, shared=shared) for version in "123"}
    here.state("a")
    for version in "123":
        roll(here, version)
        here.commit("a")
        eventually(outbox.idle)
    kept = {topic.split("/")[2] for topic in sender.retained if "/b/" in topic}
    wanted = {d for version in "23" for d, _ in releases[version].everything}
    assert kept == wanted
    assert set(releases["1"].blobs) & wanted  # the shared blob
    assert here.fleet.chunk_plan()[1] == []


def test_an_interrupted_clearing_is_done_again_after_a_restart(
    here: FleetOnDisk, sender: GatedSender
) -> None:
    releases = {version: here.publish(version) for version in "123"}
    here.state("a")
    for version in "123":
        roll(here, version)
        here.commit("a")
    outbox = Outbox(here.fleet, sender)  # its predecessor was killed before it sent anything
    for digest, data in releases["1"].everything:
        sender.retained[here.topics.chunk(digest, 0)] = data
    outbox.start()
    outbox.connected()
    eventually(outbox.idle)
    outbox.stop()
    kept = {topic.split("/")[2] for topic in sender.retained if "/b/" in topic}
    assert not kept & {digest for digest, _ in releases["1"].everything}
    assert here.fleet.chunk_plan()[1] == []


def test_a_damaged_release_does_not_hold_up_the_others(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender, caplog: pytest.LogCaptureFixture
) -> None:
    releases = {version: here.publish(version) for version in "12"}
    here.state("a")
    for version in "12":
        roll(here, version)
        here.commit("a")
    eventually(outbox.idle)
    here.depot.blobs.path(releases["1"].digest).write_bytes(b"broken")
    sender.retained.clear()
    outbox.connected()
    eventually(outbox.idle)
    assert "blob-damaged" in caplog.text
    assert here.topics.chunk(releases["2"].digest, 0) in sender.retained
    assert here.topics.desired("a") in sender.retained


def wish(*topics: str) -> TopicRequest:
    return TopicRequest(device_id="a", topics=topics)


def test_a_device_is_sent_what_belongs_on_topics(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    release = here.publish("1")
    here.state("a")
    roll(here, "1")
    eventually(outbox.idle)
    below = here.topics.below
    chunk, mine = here.topics.chunk(release.digest, 0), here.topics.desired("a")
    before = len(sender.sent)
    outbox.topics(wish(below(chunk), below(mine), below(here.topics.desired("b")), "dev/#", ""))
    eventually(outbox.idle)
    message = here.fleet.desired_message("a")
    assert message is not None
    assert sender.sent[before:] == [
        (here.topics.response("a", 0, 1, chunk), release.envelope),
        (here.topics.response("a", 0, 1, mine), message[1]),
        (here.topics.response("a", 0, 1, here.topics.desired("b")), b""),
    ]


def test_what_the_broker_refuses_is_not_published(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    release = here.publish("1", shared=bytes(20_000))
    here.state("a")
    roll(here, "1")
    eventually(outbox.idle)
    sender.sent.clear()
    sender.retained.clear()
    outbox.connected(BrokerReport(max_payload_bytes=4096))
    eventually(outbox.idle)
    assert all(len(payload) <= 4096 for _, payload in sender.sent)
    assert not any(topic.startswith(f"{here.topics.tenant}/b/") for topic, _ in sender.sent)
    large = next(d for d, data in release.blobs.items() if len(data) > 4096)
    outbox.topics(wish(here.topics.below(here.topics.chunk(large, 0))))
    eventually(outbox.idle)
    pieces = [payload for topic, payload in sender.sent if "/rsp/" in topic]
    assert b"".join(pieces) == release.blobs[large]
    assert max(map(len, pieces)) <= 4096


def test_a_broker_without_memory_is_not_asked_to_remember(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender
) -> None:
    here.publish("1")
    here.state("a")
    outbox.connected(BrokerReport(retained=False, wildcard_retained=False))
    roll(here, "1")
    eventually(outbox.idle)
    assert sender.retained == {}
    assert here.topics.desired("a") in topics(sender)


LARGE = bytes(range(256)) * (9 * CHUNK_BYTES // 256) + b"end"
AMPLE = BrokerReport(max_payload_bytes=SPAN * CHUNK_BYTES)


def spans_kept(sender: GatedSender) -> dict[int, bytes]:
    return {
        int(topic.rpartition("/")[2]): payload
        for topic, payload in sender.retained.items()
        if f"/x{SPAN}/" in topic
    }


def told_span(here: FleetOnDisk, sender: GatedSender) -> int:
    return decode(sender.retained[here.topics.broker()], BrokerReport, "report").span


def test_when_a_fleet_becomes_large_the_broker_keeps_its_blobs_in_spans_as_well(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MANY_DEVICES", 2)
    here.publish("1", shared=LARGE)
    here.publish("2", shared=LARGE[::-1])
    here.state("a")
    outbox.connected(AMPLE)
    roll(here, "1")
    here.commit("a")
    eventually(outbox.idle)
    assert told_span(here, sender) == 1
    assert spans_kept(sender) == {}
    here.state("b")
    roll(here, "2")
    eventually(outbox.idle)
    assert told_span(here, sender) == SPAN
    assert any("4 to a message" in event.text for event in here.fleet.events(0, 100))
    kept: dict[str, list[bytes]] = {}
    for topic, payload in sorted(sender.retained.items()):
        parsed = here.topics.parse_span(topic)
        if parsed is not None:
            kept.setdefault(parsed[0], []).append(payload)
    assert {b"".join(each) for each in kept.values()} == {LARGE, LARGE[::-1]}


def test_spans_are_cleared_with_their_chunks_though_the_fleet_has_become_small(
    here: FleetOnDisk, outbox: Outbox, sender: GatedSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MANY_DEVICES", 1)
    here.state("a")
    outbox.connected(AMPLE)
    for version in "123":
        here.publish(version, shared=LARGE if version == "1" else b"")
        roll(here, version)
        here.commit("a")
        eventually(outbox.idle)
        assert bool(spans_kept(sender)) is (version != "3")
        monkeypatch.setattr(spans, "MANY_DEVICES", 100)
        outbox.connected(AMPLE)
        eventually(outbox.idle)
    assert here.fleet.chunk_plan()[1] == []
