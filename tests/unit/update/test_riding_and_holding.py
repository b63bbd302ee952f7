"""Waves as the device sees them; downloads that wait, are bounded, and go on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.update.holding import Holding
from agent.update.limits import UpdateLimits
from agent.update.riding import DEPARTURE_S
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.delivery import BrokerReport, WaveCredit, WaveNotice
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.update import Phase
from edge_sdk.delivery.wave import CREDIT_EVERY, LAG_S, SPAN, STALL_S, next_word
from tests.fakes.updating import DEVICE, TOPICS, Rig, desired_bytes, tiny_release

V1 = tiny_release("1", size=20 * CHUNK_BYTES)
V2 = tiny_release("2", size=20 * CHUNK_BYTES)
LARGE = max(V1.blobs, key=lambda digest: len(V1.blobs[digest]))
GATHER_S = 3.0


def rig_with(folder: Path, **limits: object) -> Rig:
    rig = Rig(folder)
    rig.limits = UpdateLimits(disk_margin_bytes=0, **limits)  # type: ignore[arg-type]
    rig.publish(V1)
    rig.publish(V2)
    return rig


def riding(folder: Path, credit_every: int = 4, **limits: object) -> Rig:
    """A device that has just announced itself for the wave of the large blob."""
    rig = rig_with(folder, **limits)
    report = BrokerReport(
        max_payload_bytes=CHUNK_BYTES, gather_s=GATHER_S, credit_every=credit_every
    )
    rig.broker.retained[TOPICS.broker()] = encode(report)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.reach(Phase.DOWNLOADING)
    rig.turn()
    return rig


def send(rig: Rig, index: int, data: bytes | None = None) -> None:
    chunk = V1.blobs[LARGE][index * CHUNK_BYTES :][:CHUNK_BYTES]
    rig.link.receive(TOPICS.wave(LARGE, index), chunk if data is None else data)


def asked(rig: Rig) -> set[int]:
    """Chunks of the large blob that were asked for one by one."""
    return {i for i in range(20) if rig.link.asked[TOPICS.chunk(LARGE, i)]}


def credits_of(rig: Rig) -> list[int]:
    return [decode(data, WaveCredit, "credit").seen for data in rig.broker.credits]


@given(
    arriving=st.sets(st.integers(0, 19)), spoiled=st.sets(st.integers(0, 19)), over=st.booleans()
)
@settings(max_examples=8, deadline=None)
def test_what_a_wave_did_not_bring_is_fetched_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, arriving: set[int], spoiled: set[int], over: bool
) -> None:
    rig = riding(tmp_path_factory.mktemp("device"))
    for index in sorted(arriving):
        send(rig, index, b"spoiled" if index in spoiled else None)
    rig.turn()
    if over:
        rig.link.receive(TOPICS.wave_notice(LARGE), encode(WaveNotice(over=True)))
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == set(range(20)) - (arriving - spoiled)
    assert not [topic for topic in rig.link.subscribed if "/m/" in topic]


def test_a_rider_says_how_far_it_is(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    assert credits_of(rig) == [0]
    for index in range(20):
        send(rig, index)
    rig.turn()
    assert credits_of(rig) == [0, 4, 8, 12, 16]
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == set()


def test_a_rider_says_it_as_often_as_it_was_told_to_at_its_own_place(tmp_path: Path) -> None:
    rig = riding(tmp_path, credit_every=CREDIT_EVERY)
    place = next_word(DEVICE.device_id, 0, CREDIT_EVERY)
    for index in range(19):
        send(rig, index)
    rig.turn()
    assert credits_of(rig) == [0, *range(place, 20, CREDIT_EVERY)]


def test_a_rider_says_it_after_a_while_whatever_it_was_told(tmp_path: Path) -> None:
    """Else a slow one, and one whose word was lost, would count as one that is stuck."""
    rig = riding(tmp_path, credit_every=64)
    send(rig, 0)
    rig.turn()
    began = rig.clock.time
    while len(credits_of(rig)) < 2:
        rig.turn()
    assert rig.clock.time - began < LAG_S
    assert credits_of(rig) == [0, 1]


def test_a_message_from_beyond_the_blob_silences_nobody(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    send(rig, 10**8, b"?")
    for index in range(20):
        send(rig, index)
    rig.turn()
    assert credits_of(rig) == [0, 4, 8, 12, 16]


def test_several_chunks_come_in_one_message(tmp_path: Path) -> None:
    """Of one with a spoiled chunk the others are taken, and what is beyond the bound is not."""
    rig = riding(tmp_path)
    assert decode(rig.broker.credits[0], WaveCredit, "credit").span == SPAN
    chunk = [V1.blobs[LARGE][index * CHUNK_BYTES :][:CHUNK_BYTES] for index in range(20)]
    send(rig, 0, b"".join(chunk[0:SPAN]))
    send(rig, 4, b"".join((chunk[4], b"?" * CHUNK_BYTES, chunk[6])))
    send(rig, 8, b"".join(chunk[8 : 8 + SPAN + 1]))
    send(rig, 16, b"".join(chunk[16:20]))
    rig.link.receive(TOPICS.wave_notice(LARGE), encode(WaveNotice(over=True)))
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == {5, 7, 12, 13, 14, 15}


def test_the_last_message_of_a_wave_ends_a_blob_with_its_last_chunk(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    for index in range(0, 20, SPAN):
        send(rig, index, V1.blobs[LARGE][index * CHUNK_BYTES :][: SPAN * CHUNK_BYTES])
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == set()
    assert rig.received == sum(len(data) for _, data in V1.everything)


def test_a_rider_outlasts_a_wave_that_waits_for_a_slow_one(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    send(rig, 0)
    rig.turn()
    heard = rig.clock.time
    while rig.clock.time - heard < STALL_S:
        rig.turn()
        assert asked(rig) == set()
    for index in range(1, 20):
        send(rig, index)
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == set()


def test_without_a_wave_the_wait_is_short(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    began = rig.clock.time
    while not asked(rig):
        rig.turn()
    assert rig.clock.time - began <= GATHER_S + DEPARTURE_S + 1
    assert rig.settle().phase is Phase.COMMITTED


def test_who_is_told_to_leave_fetches_the_rest(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    send(rig, 0)
    rig.link.receive(TOPICS.wave_notice(LARGE), encode(WaveNotice(leave=("cam-2",))))
    rig.turn()
    assert asked(rig) == set()
    rig.link.receive(TOPICS.wave_notice(LARGE), b"{")
    rig.link.receive(TOPICS.wave_notice(LARGE), encode(WaveNotice(leave=(DEVICE.device_id,))))
    rig.turn()
    rig.turn()
    assert asked(rig)
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == set(range(1, 20))


def test_a_ride_ends_with_the_connection(tmp_path: Path) -> None:
    rig = riding(tmp_path)
    for index in range(5):
        send(rig, index)
    rig.turn()
    rig.link.drop()
    rig.updater.on_disconnected()
    rig.turn()
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert asked(rig) == set(range(5, 20))


def test_a_device_with_a_bound_does_not_ride_and_keeps_to_it(tmp_path: Path) -> None:
    rig = riding(tmp_path, max_bytes_per_s=CHUNK_BYTES)
    assert rig.broker.credits == []
    began = rig.clock.time
    assert rig.settle(2000).phase is Phase.COMMITTED
    assert 24 <= rig.clock.time - began <= 40  # 27 chunks


def test_a_pause_between_chunks(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, window=4, max_bytes_per_s=4 * CHUNK_BYTES)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.reach(Phase.DOWNLOADING)
    for _ in range(10):
        rig.turn()
    rig.updater.holding.paused = True
    rig.turn()
    held = rig.received
    for _ in range(100):
        rig.turn(60.0)
    assert rig.received == held
    assert rig.link.chunks == set()
    assert rig.reports[-1].detail == "Paused until `edge-agent resume`."
    rig.updater.holding.paused = False
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.received == sum(len(data) for _, data in V1.everything)


def at(weekday: int, hour: int, minute: int = 0) -> time.struct_time:
    return time.struct_time((2026, 1, 5 + weekday, hour, minute, 0, weekday, 5 + weekday, 0))


def test_windows_say_when_they_open() -> None:
    now = [at(0, 12)]
    holding = Holding(["Mon-Fri 22:00-05:00"], lambda: 0.0, lambda _: now[0])
    assert holding.reason().endswith("the next opens on Mon at 22:00.")
    now[0] = at(5, 4, 59)
    assert holding.reason() == ""
    now[0] = at(5, 5)
    assert holding.reason().endswith("the next opens on Mon at 22:00.")
    holding.paused = True
    assert "resume" in holding.reason()


def test_an_update_waits_for_the_rollouts_window_and_keeps_to_its_rate(tmp_path: Path) -> None:
    moment = at(0, 12)
    rig = rig_with(tmp_path)
    rig.boot()
    rig.updater.holding._local = lambda _: moment
    rig.want(desired_bytes(V1, 1, windows=("22:00-05:00",), max_bytes_per_s=4 * CHUNK_BYTES))
    for _ in range(20):
        rig.turn(600.0)
    assert "Outside the rollout's maintenance windows" in rig.reports[-1].detail
    assert rig.received == len(V1.envelope)
    rig.boot()  # the bounds outlive a restart of the agent
    rig.updater.holding._local = lambda _: moment
    rig.turn(600.0)
    assert rig.received == len(V1.envelope)
    moment = at(0, 23)
    began = rig.clock.time
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.clock.time - began > 20 / 4
    rig.want(desired_bytes(V2, 2))  # which says nothing of bounds
    moment, began = at(1, 12), rig.clock.time
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.clock.time - began < 20 / 4


def test_a_window_of_the_future_that_nobody_can_read_ends_the_update(tmp_path: Path) -> None:
    rig = rig_with(tmp_path)
    rig.boot()
    rig.want(desired_bytes(V1, 1, windows=("when it rains",)))
    assert (rig.reports[-1].phase, rig.reports[-1].code) == (Phase.REJECTED, "config.bad-window")


def test_an_update_waits_for_its_window(tmp_path: Path) -> None:
    moment = time.localtime(0)
    rig = rig_with(tmp_path, windows=("22:00-05:00",))
    rig.boot()
    rig.updater.holding._local = lambda _: moment
    moment = at(0, 12)
    rig.want(desired_bytes(V1, 1))
    for _ in range(50):
        rig.turn(600.0)
    assert rig.updater.state.phase is Phase.PREFLIGHT
    assert "next opens on Mon at 22:00" in rig.reports[-1].detail
    assert rig.received == len(V1.envelope)
    moment = at(0, 23)
    assert rig.settle().phase is Phase.COMMITTED
