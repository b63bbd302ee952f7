"""The fleet's decisions on a real database: who is offered what, and what survives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import TopicRequest
from edge_sdk.contracts.fleet import ENDED, MemberStatus, RolloutRequest, RolloutState
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.contracts.update import ChunkRequest, Desired, DeviceState, Phase, TrialPolicy
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ConfigError, UsageError
from edge_sdk.server import ingest, records
from edge_sdk.server.fleet import OFFLINE_AFTER_SECONDS
from edge_sdk.server.ingest import Incoming
from tests.fakes.fleet_db import FleetOnDisk
from tests.fakes.storage import FaultyStorage, PowerCut
from tests.fakes.updating import tiny_release


@pytest.fixture
def here(tmp_path: Path) -> Iterator[FleetOnDisk]:
    fleet = FleetOnDisk(tmp_path)
    yield fleet
    fleet.close()


def roll(here: FleetOnDisk, version: str, **options: object) -> str:
    request = RolloutRequest(release="digits", version=version, **options)  # type: ignore[arg-type]
    return here.fleet.rolling.create(request).id


def settle(here: FleetOnDisk, version: str, *devices: str) -> None:
    """Roll a version out and let every device commit it."""
    roll(here, version)
    for device in devices:
        here.commit(device)
    assert here.fleet.rolling.rollout("latest").state is RolloutState.DONE


def test_a_rollout_names_the_release_and_its_trial(here: FleetOnDisk) -> None:
    release = here.publish("1")
    here.state("a")
    trial = TrialPolicy(min_frames=7)
    rollout_id = roll(here, "1", trial=trial)
    desired = here.desired("a")
    assert desired is not None
    assert (desired.deployment, desired.counter) == (rollout_id, 1)
    assert (desired.release, desired.version) == ("digits", "1")
    assert desired.manifest.digest == release.digest
    assert desired.trial == trial
    assert here.courier.seeded == [release.digest]
    assert here.courier.offered == ["a"]


def test_a_changed_contract_is_meant_where_the_rollout_says_so_and_on_the_way_back(
    here: FleetOnDisk,
) -> None:
    here.publish("1")
    here.publish("2")
    here.state("a")
    settle(here, "1", "a")
    assert not wish_of(here, "a").new_contract
    roll(here, "2", new_contract=True)
    assert wish_of(here, "a").new_contract
    here.status("a", Phase.ROLLED_BACK)
    assert (wish_of(here, "a").version, wish_of(here, "a").new_contract) == ("1", True)


def wish_of(here: FleetOnDisk, device: str) -> Desired:
    desired = here.desired(device)
    assert desired is not None
    return desired


def test_a_failed_device_is_pointed_back_at_what_it_runs(here: FleetOnDisk) -> None:
    here.publish("1")
    here.publish("2")
    here.state("a")
    here.state("b")
    settle(here, "1", "a", "b")
    roll(here, "2")
    here.status("a", Phase.ROLLED_BACK, detail="accuracy fell", code="gate.trial")
    info = here.fleet.rolling.rollout("latest")
    assert info.state is RolloutState.FAILED
    assert info.reason == "a rolled back (accuracy fell)"
    assert {m.device_id: m.status for m in info.members} == {
        "a": MemberStatus.FAILED,
        "b": MemberStatus.RESTORED,
    }
    for device in ("a", "b"):
        desired = here.desired(device)
        assert desired is not None
        assert (desired.version, desired.counter) == ("1", 3)
        assert desired.deployment == f"{info.id}-restore"
    assert sorted(here.courier.restored) == ["a", "b"]


def test_a_device_that_ran_nothing_is_told_nothing_after_a_failure(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    roll(here, "1")
    here.status("a", Phase.REJECTED)
    assert here.desired("a") is None
    assert here.fleet.desired_message("a") == (here.topics.desired("a"), b"")
    here.publish("2")
    roll(here, "2")
    desired = here.desired("a")
    assert desired is not None and desired.counter == 3


@pytest.mark.parametrize("twin", ["1", "2"])
def test_what_a_device_fell_back_to_by_itself_is_its_previous_release(
    here: FleetOnDisk, twin: str
) -> None:
    for version in ("1", "2", "3"):
        here.publish(version)
    here.state("a")
    settle(here, "1", "a")
    settle(here, "2", "a")
    deployed = here.desired("a")
    assert deployed is not None
    here.state("a", version=twin, phase=Phase.ROLLED_BACK, deployment=deployed.deployment)
    roll(here, "3")
    here.status("a", Phase.REJECTED)
    desired = here.desired("a")
    assert desired is not None and desired.version == "1"


def test_a_twin_that_lags_behind_is_not_believed(here: FleetOnDisk) -> None:
    for version in ("1", "2", "3"):
        here.publish(version)
    here.state("a")
    settle(here, "1", "a")
    failed = roll(here, "2")
    here.status("a", Phase.ROLLED_BACK)
    # The worker on trial is still the one that serves when the way back is acknowledged.
    here.state("a", version="2", phase=Phase.COMMITTED, deployment=f"{failed}-restore")
    info = here.fleet.rolling.rollout(roll(here, "3"))
    assert info.members[0].previous_version == "1"


def test_a_twin_alone_is_enough_for_a_verdict(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    rollout_id = roll(here, "1")
    here.state("a", version="1", phase=Phase.COMMITTED, deployment=rollout_id)
    info = here.fleet.rolling.rollout(rollout_id)
    assert (info.state, info.members[0].phase) == (RolloutState.DONE, "committed")


def test_a_candidate_that_serves_on_trial_is_no_verdict(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    rollout_id = roll(here, "1")
    here.state("a", version="1", phase=Phase.IDLE)  # an agent that has just started
    here.state("a", version="1", phase=Phase.TRIAL, deployment=rollout_id)
    assert here.fleet.rolling.rollout("latest").state is RolloutState.FULL


def test_what_a_device_reports_before_its_first_rollout_is_its_previous_release(
    here: FleetOnDisk,
) -> None:
    here.publish("1")
    here.publish("2")
    here.state("a", version="1")
    roll(here, "2")
    here.status("a", Phase.REJECTED)
    desired = here.desired("a")
    assert desired is not None and desired.version == "1"


def test_verdicts_about_something_else_do_not_count(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    here.state("stranger", profile="other")
    rollout_id = roll(here, "1")
    here.status("a", Phase.COMMITTED, deployment="r0-older")
    here.status("a", Phase.TRIAL)
    here.status("stranger", Phase.REJECTED, deployment=rollout_id)
    here.state("a", version="0", phase=Phase.COMMITTED, deployment="r0-older")
    here.state("a", version="1", phase=Phase.TRIAL, deployment=rollout_id)
    assert here.fleet.rolling.rollout(rollout_id).state is RolloutState.FULL


@pytest.mark.parametrize("phase", [Phase.REJECTED, Phase.IDLE, Phase.DOWNLOADING])
def test_garbage_that_a_device_refuses_says_nothing_about_the_rollout(
    here: FleetOnDisk, phase: Phase
) -> None:
    here.publish("1")
    here.state("a")
    rollout_id = roll(here, "1")
    here.status("a", Phase.DOWNLOADING)
    for _ in range(3):
        here.status("a", phase, deployment="", detail="bad key", code="trust.bad-signature")
    info = here.fleet.rolling.rollout(rollout_id)
    assert (info.state, info.members[0].status) == (RolloutState.FULL, MemberStatus.OFFERED)
    assert (info.members[0].phase, here.fleet.device("a").phase) == ("downloading", "downloading")
    refusals = [event for event in here.fleet.events(0, 1000) if event.kind == "refusal"]
    assert [event.text for event in refusals] == ["a refuses a desired state: bad key"]
    assert [event.code for event in refusals] == ["trust.bad-signature"]
    here.commit("a")
    assert here.fleet.rolling.rollout(rollout_id).state is RolloutState.DONE


HUGE = 2**63
POISON = {
    "tel": b'{"device_id":"a","at":1,"interval_s":1,"frames":%d}' % HUGE,
    "ota": b'{"device_id":"a","deployment":"%s","release":"digits","version":"1",'
    b'"phase":"downloading","at":1,"bytes_total":' + b"%d}" % HUGE,
    "req": b'{"device_id":"a","digest":"0","chunks":[%d]}' % HUGE,
}


@pytest.mark.parametrize("leaf", sorted(POISON))
def test_one_poisonous_message_is_all_that_is_lost(here: FleetOnDisk, leaf: str) -> None:
    here.publish("1")
    here.state("a")
    rollout_id = roll(here, "1").encode()
    topics = here.topics
    poison = POISON[leaf].replace(b"%s", rollout_id)
    sample = encode(TelemetrySample(device_id="b", at=1.0, interval_s=1.0, labelled=4, correct=3))
    good = Incoming(topics.telemetry("b"), sample)
    bad = Incoming(topics.state("a").removesuffix("state") + leaf, poison)
    here.fleet.ingest([good, bad, good])
    assert here.fleet.device("b").labelled == 8
    assert here.fleet.refused_messages == 1
    assert here.fleet.failed_messages == 0


def test_a_message_that_meets_a_defect_is_lost_alone(
    here: FleetOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The sums near the end of 64 bits stand for whatever the contracts do not foresee."""
    sample = TelemetrySample(device_id="a", at=1.0, interval_s=1.0, labelled=1)
    here.hear("tel", sample)
    with here.engine.begin() as connection:
        records.save_device(connection, "a", labelled=2**63 - 1)
    other = TelemetrySample(device_id="b", at=1.0, interval_s=1.0, labelled=1)
    topics = here.topics
    batch = [("b", other), ("a", sample), ("b", other)]
    here.fleet.ingest([Incoming(topics.telemetry(name), encode(said)) for name, said in batch])
    assert here.fleet.device("b").labelled == 2
    assert here.fleet.failed_messages == 1
    assert topics.telemetry("a") in caplog.text


def test_telemetry_that_an_older_server_took_does_not_hide_the_device(here: FleetOnDisk) -> None:
    here.state("a")
    with here.engine.begin() as connection:
        records.save_device(connection, "a", telemetry=POISON["tel"])
    assert here.fleet.device("a").telemetry is None


def test_a_rollback_without_a_previous_release_is_told_as_it_is(here: FleetOnDisk) -> None:
    release = here.publish("1")
    for device in ("done", "loading"):
        here.state(device)
    rollout_id = roll(here, "1")
    here.commit("done")
    here.status("loading", Phase.DOWNLOADING)
    info = here.fleet.rolling.rollback("latest")
    assert info.state is RolloutState.ROLLED_BACK
    assert {(m.device_id, m.status, m.detail) for m in info.members} == {
        (device, MemberStatus.KEPT, "nothing to go back to") for device in ("done", "loading")
    }
    assert here.fleet.desired_message("loading") == (here.topics.desired("loading"), b"")
    assert here.courier.restored == ["loading"]
    kept = here.desired("done")
    assert kept is not None and (kept.version, kept.counter) == ("1", 1)
    assert release.digest in here.fleet.chunk_plan()[0]
    kinds = {(e.kind, e.device_id) for e in here.fleet.events(0, 1000)}
    assert {("keep", "done"), ("withdraw", "loading")} <= kinds
    # A word that was on its way may say that it has committed; the reason stays beside it.
    here.status("loading", Phase.COMMITTED, deployment=rollout_id)
    member = here.fleet.rolling.rollout(rollout_id).members[1]
    assert (member.status, member.phase) == (MemberStatus.KEPT, "committed")
    assert member.detail == "nothing to go back to"


def test_what_was_committed_before_a_withdrawal_came_is_the_next_previous_release(
    here: FleetOnDisk,
) -> None:
    here.publish("1")
    here.publish("2")
    here.state("a")
    first = roll(here, "1")
    here.fleet.rolling.rollback("latest")
    here.state("a", version="1", phase=Phase.COMMITTED, deployment=first)
    info = here.fleet.rolling.rollout(roll(here, "2"))
    assert info.members[0].previous_version == "1"


def test_a_verdict_reads_no_other_device(here: FleetOnDisk) -> None:
    """A fleet of N devices would otherwise cost N times N rows a rollout."""
    here.publish("1")
    names = [f"d{number}" for number in range(40)]
    for name in names:
        here.fleet.enroll(name, "rpi4")
    roll(here, "1", max_failures=40)
    statements: list[str] = []
    sa.event.listen(
        here.engine, "before_cursor_execute", lambda *about: statements.append(about[2])
    )
    for name in names[:-1]:
        here.status(name, Phase.REJECTED if name == "d3" else Phase.COMMITTED)
    assert not [text for text in statements if "ORDER BY rollout_devices.position" in text]
    here.status(names[-1], Phase.COMMITTED)
    assert here.fleet.rolling.rollout("latest").state is RolloutState.DONE


def test_one_rollout_at_a_time(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    first = roll(here, "1")
    with pytest.raises(UsageError, match="rollout-active"):
        roll(here, "1")
    here.fleet.rolling.abort(first)
    second = roll(here, "1")
    with pytest.raises(UsageError, match="not-latest-rollout"):
        here.fleet.rolling.rollback(first)
    here.fleet.rolling.rollback(second)
    rolling = here.fleet.rolling
    for end in (rolling.rollback, rolling.abort, rolling.pause, rolling.resume):
        with pytest.raises(UsageError, match="rollout-ended"):
            end(second)


def test_a_pause_outlives_a_restart_and_no_word_of_before_counts_after_it(tmp_path: Path) -> None:
    here = FleetOnDisk(tmp_path)
    for version in ("1", "2"):
        here.publish(version)
    for device in ("a", "b", "c"):
        here.state(device)
    settle(here, "1", "a", "b", "c")
    rollout_id = roll(here, "2")
    here.status("a", Phase.DOWNLOADING)
    here.status("b", Phase.PREFLIGHT)
    offered = wish_of(here, "b")
    here.fleet.rolling.pause("latest")
    here.close()

    here = FleetOnDisk(tmp_path)
    info = here.fleet.rolling.pause(rollout_id)
    assert (info.state, info.paused) == (RolloutState.FULL, True)
    assert [member.status for member in info.members] == ["offered", "waiting", "waiting"]
    assert [wish_of(here, device).version for device in ("a", "b", "c")] == ["2", "1", "1"]
    here.commit("a")
    here.fleet.rolling.resume("latest")
    assert wish_of(here, "b").counter == offered.counter + 2
    late = {"deployment": rollout_id, "counter": offered.counter}
    here.status("b", Phase.REJECTED, code="trust.superseded", **late)
    here.state("b", version="1", phase=Phase.REJECTED, **late)
    info = here.fleet.rolling.rollout("latest")
    assert [member.status for member in info.members] == ["committed", "offered", "offered"]
    assert info.members[1].phase == ""
    here.commit("b")
    here.commit("c")
    assert here.fleet.rolling.rollout("latest").state is RolloutState.DONE
    texts = [event.text for event in here.fleet.events(0, 1000)]
    assert f"Rollout {rollout_id} is paused: 1 devices that have begun go on, 2 wait." in texts
    assert f"Rollout {rollout_id} goes on." in texts
    here.close()


def test_an_offer_to_a_device_that_runs_nothing_is_withdrawn_for_the_pause(
    here: FleetOnDisk,
) -> None:
    here.publish("1")
    here.state("a")
    rollout_id = roll(here, "1")
    here.fleet.rolling.pause("latest")
    assert here.desired("a") is None
    here.status("a", Phase.REJECTED, rollout_id, code="link.withdrawn", counter=1)
    here.fleet.rolling.resume("latest")
    assert (wish_of(here, "a").deployment, wish_of(here, "a").counter) == (rollout_id, 3)
    here.commit("a")
    assert here.fleet.rolling.rollout("latest").state is RolloutState.DONE


def test_what_degrades_after_its_commit_stops_the_rollout_and_is_told(here: FleetOnDisk) -> None:
    for version in ("1", "2"):
        here.publish(version)
    for device in ("a", "b"):
        here.state(device)
    settle(here, "1", "a", "b")
    rollout_id = roll(here, "2", canary=1)
    here.commit("a")
    degraded = {"detail": "A frame takes 80.0 ms, 20.0 ms on trial.", "code": "gate.degraded"}
    for _ in range(2):
        here.status("a", Phase.COMMITTED, **degraded)  # without anything to go back to
        here.status("b", Phase.REJECTED, deployment="", **degraded)  # of an earlier release
    assert here.fleet.rolling.rollout(rollout_id).state is RolloutState.FULL
    here.status("a", Phase.ROLLED_BACK, **degraded)
    info = here.fleet.rolling.rollout(rollout_id)
    assert info.state is RolloutState.FAILED
    assert {m.device_id: m.status for m in info.members} == {"a": "failed", "b": "restored"}
    assert wish_of(here, "a").version == "1"
    told = [(e.text, e.code) for e in here.fleet.events(0, 1000) if e.kind == "alert"]
    said = "A frame takes 80.0 ms, 20.0 ms on trial."
    assert told == [(f"a: {said}", "gate.degraded"), (f"b: {said}", "gate.degraded")]


def test_rollouts_that_make_no_sense_are_refused(here: FleetOnDisk) -> None:
    with pytest.raises(UsageError, match="unknown-release"):
        roll(here, "1")
    here.publish("1")
    with pytest.raises(UsageError, match="no-devices"):
        roll(here, "1")
    here.state("a")
    here.state("x", profile="jetson-nano")
    with pytest.raises(UsageError, match=r"unknown-device.*Did you mean|unknown-device.*Known"):
        roll(here, "1", devices=("aa",))
    with pytest.raises(UsageError, match="profile-not-in-release"):
        roll(here, "1", devices=("a", "x"))
    with pytest.raises(ConfigError, match="bad-rollout"):
        roll(here, "1", canary=-1)
    with pytest.raises(ConfigError, match="bad-rollout"):
        roll(here, "1", devices_per_hour=-1)
    with pytest.raises(UsageError, match="unknown-rollout"):
        here.fleet.rolling.rollout("r1")
    assert here.fleet.rolling.rollouts() == []
    assert here.desired("a") is None


def test_devices_without_a_ladder_are_left_out_and_named(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    here.fleet.enroll("later", "rpi4")
    here.state("x", profile="jetson-nano")
    info = here.fleet.rolling.rollout(roll(here, "1", canary=1))
    assert [(m.device_id, m.canary) for m in info.members] == [("a", True), ("later", False)]
    assert info.skipped == ("x",)


def test_a_version_is_published_once(here: FleetOnDisk) -> None:
    release = here.publish("1")
    info, new = here.fleet.publish_release(release.envelope)
    assert (info.version, new) == ("1", False)
    other = tiny_release("1", size=2000, seed=99)
    for data in other.blobs.values():
        here.depot.blobs.put(data)
    with pytest.raises(UsageError, match="version-exists"):
        here.fleet.publish_release(other.envelope)
    assert len(here.fleet.releases()) == 1


def test_publishing_survives_a_power_cut_at_every_step(tmp_path: Path) -> None:
    release = tiny_release("1", size=2000)
    for cut_at in range(1, 40):
        folder = tmp_path / str(cut_at)
        folder.mkdir()
        before = FleetOnDisk(folder, FaultyStorage(cut_at))
        try:
            before.publish("1")
            whole = True
        except PowerCut:
            whole = False
        before.close()
        after = FleetOnDisk(folder, DiskStorage())
        assert [info.version for info in after.fleet.releases()] == (["1"] if whole else [])
        after.publish("1")
        assert [info.digest for info in after.fleet.releases()] == [release.digest]
        after.state("a")
        roll(after, "1")
        after.close()
        if whole:
            return
    pytest.fail("there are more durable steps than the test cuts")


def test_chunk_requests_are_passed_on(here: FleetOnDisk) -> None:
    request = ChunkRequest(device_id="a", digest="0" * 64, chunks=(1, 2))
    here.hear("req", request)
    here.hear("req", request, sender="b")  # speaks for another device
    assert here.courier.requests == [request]
    assert here.fleet.refused_messages == 1


def test_requests_for_kept_messages_are_passed_on(here: FleetOnDisk) -> None:
    request = TopicRequest(device_id="a", topics=("tuf/head",))
    here.hear("want", request)
    here.hear("want", request, sender="b")
    assert here.courier.requests == [request]
    assert here.fleet.refused_messages == 1


def test_the_event_log_says_how_chunks_come_when_that_changes(here: FleetOnDisk) -> None:
    def told() -> list[str]:
        return [e.text for e in here.fleet.events(0, 100) if e.kind in ("delivery", "broker")]

    here.state("a", delivery="window: as usual")
    assert told() == []
    for _ in range(2):
        here.state("a", delivery="response: nothing is kept")
        here.fleet.note_broker("Broker x: nothing is kept.")
    here.state("a", delivery="window: as usual")
    assert told() == [
        "a gets its chunks by response: nothing is kept.",
        "Broker x: nothing is kept.",
        "a gets its chunks by window: as usual.",
    ]


def test_an_offline_twin_does_not_undo_what_is_known(here: FleetOnDisk) -> None:
    here.state("a", version="2", phase=Phase.COMMITTED, deployment="r1")
    here.state("a", online=False, version="1", phase=Phase.IDLE)
    device = here.fleet.device("a")
    assert (device.online, device.version, device.phase) == (False, "2", "committed")


def test_a_device_that_falls_silent_is_not_online_for_ever(here: FleetOnDisk) -> None:
    """Its last will is lost when the broker goes down together with it."""
    here.publish("1")
    here.state("a")
    here.clock += OFFLINE_AFTER_SECONDS
    here.state("b")
    assert [device.online for device in here.fleet.devices()] == [False, True]
    assert not here.fleet.device("a").online
    info = here.fleet.rolling.rollout(roll(here, "1", canary=1))
    assert [member.device_id for member in info.members] == ["b", "a"]
    here.hear("tel", TelemetrySample(device_id="a", at=1.0, interval_s=1.0))
    assert here.fleet.device("a").online
    here.state("a", online=False)
    here.hear("tel", TelemetrySample(device_id="a", at=1.0, interval_s=1.0))
    assert not here.fleet.device("a").online


def test_a_twin_that_the_broker_kept_is_no_sign_of_life(here: FleetOnDisk) -> None:
    here.state("a")
    here.clock += OFFLINE_AFTER_SECONDS
    twin = encode(DeviceState(device_id="a", online=True, version="2", profile="rpi4"))
    here.fleet.ingest([Incoming(here.topics.state("a"), twin, retained=True)])
    assert (here.fleet.device("a").online, here.fleet.device("a").version) == (False, "2")
    here.fleet.ingest([Incoming(here.topics.state("a"), twin)])
    assert here.fleet.device("a").online


def test_strangers_cannot_fill_the_database(
    here: FleetOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_UNENROLLED", 2)
    for name in ("a", "b", "c"):
        here.state(name)
        here.hear("tel", TelemetrySample(device_id=name, at=1.0, interval_s=1.0))
    here.fleet.enroll("d", "rpi4")
    here.state("d")
    assert [device.id for device in here.fleet.devices()] == ["a", "b", "d"]


def test_accuracy_counts_from_the_start_of_a_version(here: FleetOnDisk) -> None:
    for version, correct in (("1", 5), ("1", 6), ("2", 9)):
        sample = TelemetrySample(
            device_id="a", at=1.0, interval_s=1.0, version=version, labelled=10, correct=correct
        )
        here.hear("tel", sample)
    device = here.fleet.device("a")
    assert (device.labelled, device.accuracy) == (10, 0.9)


def test_each_phase_is_logged_once(here: FleetOnDisk) -> None:
    here.publish("1")
    here.state("a")
    rollout_id = roll(here, "1")
    for _ in range(3):
        here.status("a", Phase.DOWNLOADING)
        here.state("a", phase=Phase.DOWNLOADING, deployment=rollout_id)
    here.commit("a")
    phases = [event.phase for event in here.fleet.events(0, 1000) if event.kind == "update"]
    assert phases == ["downloading", "committed"]


def test_events_come_in_order_and_bounded_portions(here: FleetOnDisk) -> None:
    for number in range(30):
        here.fleet.enroll(f"d{number}", "rpi4")
    first = here.fleet.events(0, 10)
    rest = here.fleet.events(first[-1].id, 10**9)
    assert [event.id for event in first + rest] == sorted(event.id for event in first + rest)
    assert (len(first), len(rest)) == (10, 20)
    assert len(here.fleet.events(0, -5)) == 1


NAMES = ("a", "b", "c")
MESSAGE_PHASES = (Phase.DOWNLOADING, Phase.TRIAL, Phase.REJECTED, Phase.ROLLED_BACK)


class FleetMachine(RuleBasedStateMachine):
    """Any mixture of operators, devices and restarts, against what must always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.counters: dict[str, int] = {}
        self.published = 0

    @initialize(folder=st.uuids())
    def begin(self, folder: object) -> None:
        import tempfile

        self.root = tempfile.TemporaryDirectory()
        self.here = FleetOnDisk(Path(self.root.name))
        for name in NAMES:
            self.here.state(name)

    def teardown(self) -> None:
        if hasattr(self, "here"):
            self.here.close()
            self.root.cleanup()

    @precondition(lambda self: self.published < 4)
    @rule()
    def publish(self) -> None:
        self.published += 1
        self.here.publish(str(self.published))

    @precondition(lambda self: self.published > 0)
    @rule(
        version=st.integers(1, 4),
        canary=st.integers(0, 3),
        max_failures=st.integers(0, 2),
        back=st.booleans(),
        devices=st.sets(st.sampled_from(NAMES)),
        per_hour=st.sampled_from((0, 0, 60)),
    )
    def create(
        self,
        version: int,
        canary: int,
        max_failures: int,
        back: bool,
        devices: set[str],
        per_hour: int,
    ) -> None:
        try:
            roll(
                self.here,
                str(min(version, self.published)),
                canary=canary,
                max_failures=max_failures,
                rollback_on_failure=back,
                devices=tuple(sorted(devices)),
                devices_per_hour=per_hour,
            )
        except UsageError as error:
            assert error.slug == "rollout-active"

    @rule(device=st.sampled_from(NAMES))
    def commit(self, device: str) -> None:
        self.here.commit(device)

    @rule(device=st.sampled_from(NAMES), phase=st.sampled_from(MESSAGE_PHASES))
    def report(self, device: str, phase: Phase) -> None:
        self.here.status(device, phase)

    @rule(end=st.sampled_from(("abort", "rollback", "pause", "resume")))
    def end(self, end: str) -> None:
        try:
            getattr(self.here.fleet.rolling, end)("latest")
        except UsageError as error:
            assert error.slug in ("rollout-ended", "unknown-rollout")

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        self.here.clock += seconds
        self.here.fleet.rolling.tick()

    @rule()
    def restart(self) -> None:
        clock = self.here.clock
        self.here.close()
        self.here = FleetOnDisk(Path(self.root.name))
        self.here.clock = clock

    @invariant()
    def counters_only_grow(self) -> None:
        for device in self.here.fleet.devices() if hasattr(self, "here") else ():
            assert device.counter >= self.counters.get(device.id, 0)
            self.counters[device.id] = device.counter

    @invariant()
    def at_most_one_rollout_is_active_and_it_is_the_newest(self) -> None:
        rollouts = self.here.fleet.rolling.rollouts() if hasattr(self, "here") else []
        assert all(rollout.state in ENDED for rollout in rollouts[1:])

    @invariant()
    def desired_states_follow_the_newest_rollout(self) -> None:
        rollouts = self.here.fleet.rolling.rollouts() if hasattr(self, "here") else []
        for member in rollouts[0].members if rollouts else ():
            desired = self.here.desired(member.device_id)
            version = desired.version if desired else ""
            back = {MemberStatus.FAILED, MemberStatus.RESTORED}
            back |= {MemberStatus.WAITING} if rollouts[0].paused else set()
            if member.status in (MemberStatus.OFFERED, MemberStatus.COMMITTED):
                assert version == rollouts[0].version
            elif member.status in back:
                assert version == member.previous_version
            elif member.status is MemberStatus.KEPT:
                assert version in ("", rollouts[0].version)
                assert not member.previous_version

    @invariant()
    def whatever_may_be_wanted_is_on_the_broker(self) -> None:
        if not hasattr(self, "here"):
            return
        wanted, unwanted = self.here.fleet.chunk_plan()
        assert not set(wanted) & set(unwanted)
        for device in NAMES:
            desired = self.here.desired(device)
            assert desired is None or desired.manifest.digest in wanted


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
