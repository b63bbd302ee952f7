"""The whole updater against a broker in memory and a scripted host."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from agent.update.limits import UpdateLimits
from agent.update.ports import ServiceStats
from agent.update.trust import Device
from edge_sdk.bundle.signing import sign
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import MANIFEST_TYPE
from edge_sdk.contracts.update import Phase
from edge_sdk.errors import ContractError
from tests.fakes.updating import (
    OTHER_KEY,
    RELEASE_KEY,
    TOPICS,
    Behaviour,
    FakeSensors,
    Rig,
    TinyRelease,
    desired_bytes,
    tiny_release,
)

V1, V2, V3 = tiny_release("1"), tiny_release("2"), tiny_release("3")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A device that has booted for the first time, with three releases published."""
    rig = Rig(tmp_path)
    for release in (V1, V2, V3):
        rig.publish(release)
    rig.boot()
    return rig


def phases(rig: Rig, deployment: str) -> list[Phase]:
    seen: list[Phase] = []
    for status in rig.reports:
        if status.deployment == deployment and seen[-1:] != [status.phase]:
            seen.append(status.phase)
    return seen


def test_first_install_goes_through_every_phase(rig: Rig) -> None:
    rig.want(desired_bytes(V1, 1))
    status = rig.settle()
    assert status.phase is Phase.COMMITTED, status
    assert phases(rig, "d1") == [
        Phase.OFFERED,
        Phase.PREFLIGHT,
        Phase.DOWNLOADING,
        Phase.VERIFYING,
        Phase.GOLDEN,
        Phase.TRIAL,
        Phase.COMMITTED,
    ]
    assert rig.host.committed
    assert rig.host.serving == rig.updater.active
    assert rig.link.widest <= rig.limits.window
    assert rig.link.chunks == set()
    size = sum(len(data) for _, data in V1.everything)
    assert rig.received == size


def install(rig: Rig, payload: bytes) -> None:
    rig.want(payload)
    rig.settle()


def test_a_failed_golden_test_is_rejected_and_remembered(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.publish(V2, golden_ok=False)
    install(rig, desired_bytes(V2, 2))
    assert rig.reports[-1].phase is Phase.REJECTED
    assert rig.reports[-1].code == "gate.golden-failed"
    assert rig.version == "1"
    assert "trial 2" not in rig.host.starts
    install(rig, desired_bytes(V2, 3))
    assert rig.reports[-1].code == "trust.known-bad"


def test_a_bad_trial_rolls_back(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.publish(V2, accuracy=0.6)
    install(rig, desired_bytes(V2, 2))
    assert rig.reports[-1].phase is Phase.ROLLED_BACK
    assert rig.reports[-1].code in {"gate.accuracy", "gate.accuracy-floor"}
    assert rig.version == "1"
    assert rig.host.serving == rig.updater.active


def test_a_wrong_key_never_gets_anywhere(rig: Rig) -> None:
    rig.updater.on_desired(desired_bytes(V1, 1, key=OTHER_KEY))
    assert rig.reports[-1].code == "trust.bad-signature"
    assert rig.updater.state.phase is Phase.IDLE
    strange = tiny_release("7", key=OTHER_KEY)
    rig.publish(strange)
    install(rig, desired_bytes(strange, 2))
    assert rig.reports[-1].code == "trust.bad-signature"
    assert rig.host.starts == []


def test_a_replayed_wish_changes_nothing(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    install(rig, desired_bytes(V2, 2))
    before = rig.updater.state
    rig.updater.on_desired(desired_bytes(V1, 1, deployment="again"))
    assert rig.reports[-1].code == "trust.replayed"
    assert rig.updater.state == before


def test_a_repeated_wish_is_no_new_work(rig: Rig) -> None:
    wish = desired_bytes(V1, 1)
    install(rig, wish)
    starts, asked = list(rig.host.starts), dict(rig.link.asked)
    rig.want(wish)
    for _ in range(10):
        rig.turn()
    assert rig.host.starts == starts
    assert rig.link.asked == asked
    assert rig.reports[-1].phase is Phase.COMMITTED


def test_a_wish_for_another_device_is_refused(rig: Rig) -> None:
    rig.updater.on_desired(desired_bytes(V1, 1, device_id="cam-2"))
    assert rig.reports[-1].code == "trust.other-device"
    assert rig.updater.state.counter == -1


def test_a_wish_for_the_active_release_commits_at_once(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    starts = list(rig.host.starts)
    rig.want(desired_bytes(V1, 2))
    assert (rig.reports[-1].phase, rig.reports[-1].deployment) == (Phase.COMMITTED, "d2")
    assert rig.host.starts == starts


def test_going_back_to_the_version_before_transfers_nothing(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    install(rig, desired_bytes(V2, 2))
    received = rig.received
    install(rig, desired_bytes(V1, 3))
    assert rig.version == "1"
    assert rig.received == received
    assert rig.reports[-1].bytes_reused == rig.reports[-1].bytes_total > 0


def test_an_operator_may_go_back_to_a_less_accurate_version(rig: Rig) -> None:
    """Two versions back: no longer in a slot, fetched again and tried against its own accuracy."""
    worse = tiny_release("4", sequence=1, accuracy=0.8)
    rig.publish(worse, accuracy=0.8)
    install(rig, desired_bytes(V2, 1))
    for _ in range(30):
        rig.turn()
    install(rig, desired_bytes(worse, 2))
    assert rig.version == "4", rig.reports[-1]


def test_shared_blobs_are_fetched_once(tmp_path: Path) -> None:
    rig, shared = Rig(tmp_path), bytes(range(256)) * 800
    first, second = tiny_release("1", shared=shared), tiny_release("2", shared=shared)
    rig.publish(first)
    rig.publish(second)
    rig.boot()
    install(rig, desired_bytes(first, 1))
    before = rig.received
    install(rig, desired_bytes(second, 2))
    sent = sum(len(data) for _, data in second.everything) - len(shared)
    assert rig.received - before == sent
    assert rig.reports[-1].bytes_reused == len(shared)


def test_only_the_devices_own_ladder_is_fetched(tmp_path: Path) -> None:
    """A release for several runtimes: the points this device cannot run stay away."""
    rig = Rig(tmp_path, device=Device("cam-1", "rpi4", ("litert",)))
    mixed = mixed_release()
    rig.publish(mixed)
    rig.boot()
    install(rig, desired_bytes(mixed, 1))
    assert rig.version == "9"
    runnable = {
        point.artifact for point in mixed.manifest.ladders["rpi4"] if point.runtime == "litert"
    }
    held = {path.name for path in (tmp_path / "blobs").iterdir()}
    assert held & set(mixed.manifest.artifacts) == runnable
    assert len(runnable) == 2 < len(mixed.manifest.artifacts) == 4


def mixed_release() -> TinyRelease:
    litert, onnx = tiny_release("9"), tiny_release("9", seed=99, runtime="onnxruntime")
    manifest = msgspec.structs.replace(
        litert.manifest,
        blobs=litert.manifest.blobs | onnx.manifest.blobs,
        artifacts=litert.manifest.artifacts | onnx.manifest.artifacts,
        ladders={"rpi4": litert.manifest.ladders["rpi4"] + onnx.manifest.ladders["rpi4"]},
    )
    envelope = encode(sign(MANIFEST_TYPE, encode(manifest), RELEASE_KEY))
    return TinyRelease(manifest, envelope, litert.blobs | onnx.blobs)


@pytest.mark.parametrize(
    ("device", "code"),
    [
        (Device("cam-1", "jetson-orin-nano", ("litert",)), "contract.no-ladder"),
        (Device("cam-1", "rpi4", ("onnxruntime",)), "runtime.no-usable-point"),
    ],
)
def test_a_release_that_does_not_fit_is_rejected(tmp_path: Path, device: Device, code: str) -> None:
    rig = Rig(tmp_path, device=device)
    rig.publish(V1)
    rig.boot()
    install(rig, desired_bytes(V1, 1))
    assert (rig.reports[-1].phase, rig.reports[-1].code) == (Phase.REJECTED, code)
    assert rig.updater.state.bad == ()


def test_a_restart_mid_transfer_receives_every_byte_once(rig: Rig) -> None:
    """The agent is killed after every few chunks and still receives the release about once."""
    large = tiny_release("8", size=40 * 65536 + 17)
    rig.publish(large)
    rig.want(desired_bytes(large, 1))
    restarts = 0
    while rig.updater.state.phase in {Phase.OFFERED, Phase.PREFLIGHT, Phase.DOWNLOADING}:
        rig.turn()  # asks
        rig.turn()  # receives
        rig.boot()  # what was on its way to the old process is lost with its connection
        restarts += 1
        assert restarts < 100
    assert restarts > 5
    assert rig.settle().phase is Phase.COMMITTED
    size = sum(len(data) for _, data in large.everything)
    assert rig.received == size


def test_a_broker_that_vanishes_mid_transfer_only_delays(rig: Rig) -> None:
    large = tiny_release("8", size=30 * 65536)
    rig.publish(large)
    rig.want(desired_bytes(large, 1))
    for _ in range(3):
        rig.turn()
    assert rig.updater.state.phase is Phase.DOWNLOADING
    rig.updater.on_disconnected()
    rig.link.drop()
    for _ in range(50):
        rig.turn()
    assert rig.updater.state.phase is Phase.DOWNLOADING
    assert rig.broker.requests == []
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.reports[-1].chunk_retries == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_lossy_reordering_broker(rig: Rig, seed: int) -> None:
    rig.broker.weather.seed(seed)
    rig.broker.loss, rig.broker.reorder = 0.3, True
    rig.want(desired_bytes(V1, 1))
    assert rig.settle(3000).phase is Phase.COMMITTED
    assert rig.reports[-1].chunk_retries > 0


@pytest.mark.parametrize("keeps", [True, False])
def test_a_broker_that_lost_its_retained_chunks(rig: Rig, keeps: bool) -> None:
    rig.broker.retained.clear()
    rig.broker.keeps = keeps
    rig.want(desired_bytes(V1, 1))
    assert rig.settle(3000).phase is Phase.COMMITTED
    assert rig.broker.requests


def test_a_tampered_chunk_is_asked_for_again(rig: Rig) -> None:
    digest = next(iter(V1.blobs))
    topic = TOPICS.chunk(digest, 1)
    good = rig.broker.retained[topic]
    rig.broker.retained[topic] = bytes([good[0] ^ 1]) + good[1:]
    rig.want(desired_bytes(V1, 1))
    assert rig.settle(1000).phase is Phase.COMMITTED
    assert rig.reports[-1].chunk_retries >= 1
    assert [request.chunks for request in rig.broker.requests] == [(1,)]


def test_a_chunk_that_stays_tampered_ends_the_update(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.broker.retained[TOPICS.chunk(next(iter(V2.blobs)), 0)] = b"x" * 65536
    rig.broker.answers = False
    rig.want(desired_bytes(V2, 2))
    status = rig.settle(3000)
    assert (status.phase, status.code) == (Phase.REJECTED, "trust.bad-chunk")
    assert rig.version == "1"
    assert list((rig.folder / "parts").iterdir()) == []


def test_a_server_that_never_answers_ends_the_update(rig: Rig) -> None:
    rig.broker.retained.clear()
    rig.broker.answers = False
    rig.limits = UpdateLimits(download_patience_s=300.0)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    status = rig.settle(2000)
    assert (status.phase, status.code) == (Phase.REJECTED, "link.download-stalled")
    assert len(rig.broker.requests) < 30, "backs off"


def test_a_disk_without_room_is_noticed_before_the_download(rig: Rig) -> None:
    rig.sensors.free = 100_000
    rig.want(desired_bytes(V1, 1))
    status = rig.settle()
    assert (status.phase, status.code) == (Phase.REJECTED, "storage.disk-full")
    assert rig.received == len(V1.envelope)


def test_the_fallback_makes_room_for_an_update(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    install(rig, desired_bytes(V2, 2))

    class Tight(FakeSensors):
        """Room for two releases."""

        def disk_free_bytes(self) -> int:
            used = sum(path.stat().st_size for path in rig.folder.rglob("*") if path.is_file())
            return 450_000 - used

    rig.sensors = Tight()
    rig.boot()
    install(rig, desired_bytes(V3, 3))
    assert rig.version == "3", rig.reports[-1]


def test_a_low_battery_is_waited_for(rig: Rig) -> None:
    rig.sensors.battery = 10.0
    rig.want(desired_bytes(V1, 1))
    for _ in range(100):
        rig.turn()
    assert rig.updater.state.phase is Phase.PREFLIGHT
    assert "battery" in rig.reports[-1].detail
    rig.sensors.battery = 50.0
    assert rig.settle().phase is Phase.COMMITTED


def test_a_busy_device_is_updated_in_the_end(rig: Rig) -> None:
    rig.sensors.idle = 1.0
    rig.want(desired_bytes(V1, 1))
    began = rig.clock.time
    assert rig.settle(1000).phase is Phase.COMMITTED
    assert rig.clock.time - began > rig.limits.headroom_patience_s


def test_a_hot_device_is_updated_in_the_end(rig: Rig) -> None:
    rig.sensors.hot = True
    rig.want(desired_bytes(V1, 1))
    began = rig.clock.time
    for _ in range(3):
        rig.turn()
    assert "heat" in rig.reports[-1].detail
    assert rig.settle(1000).phase is Phase.COMMITTED
    assert rig.clock.time - began > rig.limits.headroom_patience_s - 1


def test_memory_is_waited_for(rig: Rig) -> None:
    rig.sensors.memory = 19.0
    rig.want(desired_bytes(V1, 1))
    for _ in range(600):
        rig.turn()
    assert rig.updater.state.phase is Phase.PREFLIGHT
    assert rig.reports[-1].detail == "Waiting: Only 19 % of the memory is available."
    rig.sensors.memory = 20.0
    assert rig.settle().phase is Phase.COMMITTED


def test_memory_that_stays_short_ends_the_update(rig: Rig) -> None:
    rig.limits = UpdateLimits(memory_patience_s=30.0, disk_margin_bytes=0)
    rig.boot()
    rig.sensors.memory = 5.0
    rig.want(desired_bytes(V1, 1))
    status = rig.settle()
    assert (status.phase, status.code) == (Phase.REJECTED, "storage.memory-short")
    assert rig.updater.state.bad == ()


def test_one_crash_during_a_trial_is_forgiven(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.publish(V2, crashes=1)
    install(rig, desired_bytes(V2, 2))
    assert rig.version == "2"
    assert rig.host.starts.count("trial 2") == 2


def test_a_crash_loop_in_service_brings_the_version_before_back(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    install(rig, desired_bytes(V2, 2))
    rig.behaviours["2"] = Behaviour(crash_loops=True)
    rig.turn()
    assert rig.version == "1"
    assert rig.host.serving == rig.updater.active
    assert (rig.reports[-1].phase, rig.reports[-1].code) == (Phase.ROLLED_BACK, "gate.crash-loop")


def test_a_stream_without_labels_is_judged_by_its_errors(rig: Rig) -> None:
    rig.publish(V1, accuracy=None)
    rig.publish(V2, accuracy=None, error_share=0.2)
    install(rig, desired_bytes(V1, 1))
    assert rig.version == "1"
    install(rig, desired_bytes(V2, 2))
    assert rig.reports[-1].code == "gate.error-rate"
    assert rig.version == "1"


def test_a_slow_release_is_rolled_back(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    for _ in range(10):
        rig.turn()
    rig.publish(V2, latency_ms=50.0)
    install(rig, desired_bytes(V2, 2))
    assert rig.reports[-1].code == "gate.latency"


def test_a_trial_that_never_starts_is_rolled_back(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.want(desired_bytes(V2, 2))
    rig.reach(Phase.TRIAL)
    rig.host.dead = True  # says nothing any more
    status = rig.settle(1000)
    assert (status.phase, status.code) == (Phase.ROLLED_BACK, "gate.unproven")
    assert rig.version == "1"


def test_a_hanging_golden_test_fails(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.limits = UpdateLimits(golden_timeout_s=20.0)
    rig.boot()
    rig.want(desired_bytes(V2, 2))
    rig.reach(Phase.GOLDEN)
    for _ in range(200):
        rig.updater.tick()
        rig.clock.time += 0.2
    assert rig.updater.state.code == "gate.golden-failed"
    assert rig.host.golden is None


@pytest.mark.parametrize(
    "phase", [Phase.OFFERED, Phase.DOWNLOADING, Phase.VERIFYING, Phase.GOLDEN, Phase.TRIAL]
)
def test_a_newer_wish_supersedes_in_any_phase(rig: Rig, phase: Phase) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.want(desired_bytes(V2, 2))
    rig.reach(phase)
    install(rig, desired_bytes(V3, 3))
    assert rig.version == "3"
    superseded = [status for status in rig.reports if status.code == "trust.superseded"]
    assert [status.deployment for status in superseded] == ["d2"]
    held = {path.name for path in (rig.folder / "blobs").iterdir()}
    assert held == rig.updater.state.referenced()


def test_late_answers_of_an_abandoned_trial_are_ignored(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.want(desired_bytes(V2, 2))
    rig.reach(Phase.TRIAL)
    token = rig.host.token
    rig.want(desired_bytes(V3, 3))
    state = rig.updater.state
    rig.updater.on_worker_crash(token, "signal 11")
    rig.updater.on_stats(token, ServiceStats(frames=500, labelled=500, correct=0))
    rig.updater.on_golden("golden-1", True)
    assert rig.updater.state == state


def test_a_damaged_active_release_falls_back_and_is_fetched_again(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    install(rig, desired_bytes(V2, 2))
    victim = rig.folder / "blobs" / next(iter(V2.blobs))
    victim.write_bytes(b"rot" + victim.read_bytes()[3:])
    rig.boot()
    assert rig.host.starts[0] == "serve 1"
    assert rig.settle().phase is Phase.COMMITTED  # the retained wish installs version 2 anew
    assert rig.version == "2"


def test_a_state_file_of_a_newer_agent_is_left_alone(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    newer = '{"schema": 99, "counter": 7}'
    (rig.folder / "state.json").write_text(newer)
    with pytest.raises(ContractError, match="too-new"):
        rig.boot()
    assert (rig.folder / "state.json").read_text() == newer


def test_status_is_repeated_after_a_reconnect(rig: Rig) -> None:
    install(rig, desired_bytes(V1, 1))
    rig.reports.clear()
    rig.updater.on_disconnected()
    rig.updater.on_connected()
    assert [status.phase for status in rig.reports] == [Phase.COMMITTED]


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"\xff\xfe", b"[" * 100_000])
def test_garbage_on_any_topic_is_survived(rig: Rig, payload: bytes) -> None:
    state = rig.updater.state
    rig.updater.on_desired(payload)
    rig.updater.on_message("t1/b/zz/0/0", payload)
    rig.updater.on_message(TOPICS.chunk("0" * 64, 3), payload)
    assert rig.updater.state == state
