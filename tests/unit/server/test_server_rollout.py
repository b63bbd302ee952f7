"""The rollout state machine: what each event does, and what holds for every sequence of events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.contracts.fleet import ENDED, MemberStatus, RolloutState
from edge_sdk.server.rollout import (
    Abort,
    Committed,
    Event,
    Failed,
    Issue,
    Pause,
    Resume,
    Rollout,
    Start,
    TakeBack,
    Tick,
    is_quiet,
    may_settle,
    plan,
    settle,
    step,
)

DEVICES = ("a", "b", "c", "d")


def run(rollout: Rollout, *events: Event) -> tuple[Rollout, list[Issue]]:
    """The rollout after events, and everything issued."""
    issued: list[Issue] = []
    for event in events:
        rollout, issues = step(rollout, event)
        issued += issues
    return rollout, issued


def statuses(rollout: Rollout) -> dict[str, str]:
    return {member.device_id: member.status.value for member in rollout.members}


def offers(*names: str) -> list[Issue]:
    return [Issue(name, "offer") for name in names]


def restores(*names: str) -> list[Issue]:
    return [Issue(name, "restore") for name in names]


def begun(rollout: Rollout, *names: str) -> Rollout:
    """With those of its devices that begin as soon as they are offered anything."""
    members = tuple(replace(member, begun=member.device_id in names) for member in rollout.members)
    return replace(rollout, members=members)


def test_without_canaries_everybody_is_offered_at_once() -> None:
    rollout, issued = run(plan("abc"), Start())
    assert rollout.state is RolloutState.FULL
    assert issued == offers("a", "b", "c")
    rollout, issued = run(rollout, Committed("a"), Committed("b"), Committed("c"))
    assert rollout.state is RolloutState.DONE
    assert issued == []


def test_canaries_go_first_and_the_rest_follows() -> None:
    rollout, issued = run(plan("abcd", canary=2), Start(), Committed("a"))
    assert (rollout.state, issued) == (RolloutState.CANARY, offers("a", "b"))
    rollout, issued = run(rollout, Committed("b"))
    assert (rollout.state, issued) == (RolloutState.FULL, offers("c", "d"))


def test_as_many_canaries_as_devices_is_a_full_rollout() -> None:
    assert run(plan("ab", canary=2), Start())[0].state is RolloutState.FULL


def test_a_failing_canary_spares_the_rest() -> None:
    rollout, issued = run(plan("abc", canary=1), Start(), Failed("a", "a rolled back"))
    assert rollout.state is RolloutState.FAILED
    assert rollout.reason == "a rolled back"
    assert issued == [*offers("a"), *restores("a")]
    assert statuses(rollout) == {"a": "failed", "b": "waiting", "c": "waiting"}


def test_after_a_failure_only_committed_devices_keep_the_release() -> None:
    rollout, issued = run(plan("abc"), Start(), Committed("a"), Failed("b"))
    assert issued[3:] == restores("b", "c")
    assert statuses(rollout) == {"a": "committed", "b": "failed", "c": "restored"}


def test_rollback_on_failure_takes_it_from_everybody() -> None:
    rollout, issued = run(
        plan("abc", rollback_on_failure=True), Start(), Committed("a"), Failed("b")
    )
    assert issued[3:] == restores("b", "a", "c")
    assert statuses(rollout) == {"a": "restored", "b": "failed", "c": "restored"}


def test_tolerated_failures_do_not_stop_it_but_are_restored() -> None:
    rollout, issued = run(
        plan("abc", canary=1, max_failures=1), Start(), Failed("a"), Committed("b"), Committed("c")
    )
    assert rollout.state is RolloutState.DONE
    assert issued == [*offers("a"), *restores("a"), *offers("b", "c")]


def test_abort_keeps_what_has_committed() -> None:
    rollout, issued = run(plan("abc"), Start(), Committed("a"), Abort())
    assert rollout.state is RolloutState.ABORTED
    assert issued[3:] == restores("b", "c")


def test_taking_back_a_finished_rollout_restores_everybody() -> None:
    rollout, issued = run(plan("ab"), Start(), Committed("a"), Committed("b"), TakeBack())
    assert rollout.state is RolloutState.ROLLED_BACK
    assert issued[2:] == restores("a", "b")
    assert run(rollout, TakeBack()) == (rollout, [])


def test_who_has_nothing_to_go_back_to_keeps_what_it_committed() -> None:
    fresh = plan("abc", without_previous={"a", "b"})
    rollout, issued = run(fresh, Start(), Committed("a"), TakeBack())
    assert statuses(rollout) == {"a": "kept", "b": "kept", "c": "restored"}
    assert issued[3:] == [Issue("b", "withdraw"), *restores("c")]
    assert run(rollout, TakeBack(), Committed("b")) == (rollout, [])
    rollout, issued = run(fresh, Start(), Failed("a"))
    assert statuses(rollout) == {"a": "failed", "b": "kept", "c": "restored"}
    assert issued[3:] == [Issue("a", "withdraw"), Issue("b", "withdraw"), *restores("c")]


def test_a_pause_recalls_what_nobody_has_begun_with() -> None:
    paused, issued = run(begun(plan("abc"), "b"), Start(), Pause())
    assert (paused.state, paused.paused) == (RolloutState.FULL, True)
    assert issued[3:] == [Issue("a", "recall"), Issue("c", "recall")]
    assert statuses(paused) == {"a": "waiting", "b": "offered", "c": "waiting"}
    resumed, issued = run(paused, Committed("b"), Committed("a"), Resume())
    assert statuses(resumed) == {"a": "offered", "b": "committed", "c": "offered"}
    assert (resumed.paused, issued) == (False, offers("a", "c"))


def test_canaries_of_a_paused_rollout_promote_nothing_until_it_goes_on() -> None:
    canaries = begun(plan("abc", canary=1), "a")
    paused, issued = run(canaries, Start(), Pause(), Committed("a"))
    assert (paused.state, issued) == (RolloutState.CANARY, offers("a"))
    resumed, issued = run(paused, Resume())
    assert (resumed.state, issued) == (RolloutState.FULL, offers("b", "c"))


def test_too_many_failures_end_a_paused_rollout() -> None:
    eager = begun(plan("abc"), "a", "b")
    failed, issued = run(eager, Start(), Pause(), Failed("a", "a rolled back"))
    assert (failed.state, failed.paused) == (RolloutState.FAILED, False)
    assert issued[3:] == [Issue("c", "recall"), *restores("a", "b")]
    assert statuses(failed) == {"a": "failed", "b": "restored", "c": "waiting"}


def test_what_there_is_no_room_for_waits_for_the_next_tick() -> None:
    rollout, issues = step(plan("abcd", canary=3), Start(), 2)
    assert (rollout.state, list(issues)) == (RolloutState.CANARY, offers("a", "b"))
    rollout, issues = step(rollout, Committed("a"), 0)
    assert list(issues) == []
    rollout, issues = step(rollout, Tick(), 5)
    assert list(issues) == offers("c"), "the others are no canaries"
    rollout, issued = run(rollout, Committed("b"), Committed("c"), Committed("d"))
    assert (rollout.state, issued) == (RolloutState.DONE, offers("d"))


def test_a_paused_rollout_is_done_when_nobody_waits() -> None:
    done, _ = run(begun(plan("a"), "a"), Start(), Pause(), Committed("a"))
    assert (done.state, done.paused) == (RolloutState.DONE, False)


@given(st.data())
def test_while_paused_nobody_is_offered_anything(data: st.DataObject) -> None:
    rollout = data.draw(rollouts)
    for event in [Start(), *data.draw(st.lists(any_event, max_size=30))]:
        after, issues = step(rollout, event)
        if rollout.paused and not isinstance(event, Resume):
            assert all(issue.what != "offer" for issue in issues)
            assert after.state is rollout.state or after.state in ENDED
        assert not (after.paused and after.state in ENDED)
        rollout = after


@pytest.mark.parametrize("event", [Committed("a"), Failed("a"), TakeBack(), Pause(), Resume()])
def test_nothing_happens_before_the_start(event: Event) -> None:
    assert run(plan("ab"), event) == (plan("ab"), [])


def test_a_late_verdict_changes_nothing() -> None:
    failed, _ = run(plan("ab"), Start(), Failed("a"))
    assert run(failed, Committed("b"), Failed("b"), Committed("x")) == (failed, [])


def test_a_release_that_degrades_after_its_commit_counts_as_a_failure() -> None:
    events = (Start(), Committed("a"), Failed("a", "a degraded"))
    rollout, _ = run(plan("abc", canary=1), *events)
    assert (rollout.state, rollout.reason) == (RolloutState.FAILED, "a degraded")
    assert statuses(rollout) == {"a": "failed", "b": "restored", "c": "restored"}
    done, _ = run(plan("a"), Start(), Committed("a"))
    assert run(done, Failed("a")) == (done, []), "a rollout that has ended stays as it is"


def test_a_rollout_to_nobody_is_done() -> None:
    assert run(plan(""), Start())[0].state is RolloutState.DONE


names = st.sampled_from((*DEVICES, "stranger"))
any_event = st.one_of(
    st.builds(Start),
    st.builds(Committed, names),
    st.builds(Failed, names),
    st.builds(Pause),
    st.builds(Resume),
    st.builds(Tick),
    st.builds(Abort),
    st.builds(TakeBack),
)
rollouts = st.builds(
    lambda count, canary, failures, back, fresh, eager: begun(
        plan(
            DEVICES[:count],
            canary=canary,
            max_failures=failures,
            rollback_on_failure=back,
            without_previous=fresh,
        ),
        *eager,
    ),
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(0, 4),
    st.booleans(),
    st.sets(st.sampled_from(DEVICES)),
    st.sets(st.sampled_from(DEVICES)),
)


@given(rollouts, st.lists(any_event, max_size=30))
def test_what_is_issued_matches_the_statuses(rollout: Rollout, events: list[Event]) -> None:
    """The last issue to each device says which release its status promises."""
    members = {member.device_id for member in rollout.members}
    last: dict[str, str] = {}
    for event in events:
        before = rollout
        rollout, issues = step(rollout, event)
        assert {issue.device_id for issue in issues} <= members
        last.update((issue.device_id, issue.what) for issue in issues)
        if before.state in ENDED:
            assert all(issue.what != "offer" for issue in issues)
            assert rollout.state is before.state or rollout.state is RolloutState.ROLLED_BACK
    for member in rollout.members:
        back = "restore" if member.has_previous else "withdraw"
        expected: dict[MemberStatus, set[str | None]] = {
            MemberStatus.WAITING: {None, "recall"},
            MemberStatus.OFFERED: {"offer"},
            MemberStatus.COMMITTED: {"offer"},
            MemberStatus.FAILED: {back},
            MemberStatus.RESTORED: {"restore"},
            MemberStatus.KEPT: {"offer", "withdraw"},  # by whether it had committed
        }
        assert last.get(member.device_id) in expected[member.status]
        assert (member.status is MemberStatus.KEPT) <= (not member.has_previous)
        assert (member.status is MemberStatus.RESTORED) <= member.has_previous


@given(rollouts, st.lists(any_event, max_size=10), st.data())
def test_a_quiet_verdict_concerns_one_device_alone(
    rollout: Rollout, events: list[Event], data: st.DataObject
) -> None:
    """What lets the server settle one device without loading the others equals the machine."""
    rollout, _ = run(rollout, Start(), *events)
    offered = {m.device_id for m in rollout.members if m.status is MemberStatus.OFFERED}
    for member in rollout.members if rollout.state not in ENDED else ():
        verdict = data.draw(st.sampled_from((Committed, Failed)))(member.device_id)
        if not may_settle(member.status, verdict):
            continue
        quiet = is_quiet(
            verdict,
            others_offered=bool(offered - {member.device_id}),
            failures=rollout.failures,
            max_failures=rollout.max_failures,
        )
        after, issues = step(rollout, verdict)
        settled, own = settle(member, verdict)
        others = [m for m in after.members if m.device_id != member.device_id]
        unmoved = after.state is rollout.state and others == [
            m for m in rollout.members if m.device_id != member.device_id
        ]
        assert settled in after.members
        assert quiet <= unmoved
        if not any(isinstance(event, Pause) for event in events):
            assert quiet == unmoved
        if quiet:
            assert issues == own


@given(rollouts, st.lists(st.tuples(any_event, st.integers(0, 3)), max_size=30))
def test_no_more_are_offered_it_than_there_is_room_for(
    rollout: Rollout, events: list[tuple[Event, int]]
) -> None:
    for event, room in events:
        rollout, issues = step(rollout, event, room)
        assert sum(issue.what == "offer" for issue in issues) <= room


@given(rollouts, st.lists(any_event, max_size=30))
def test_too_many_failures_always_end_it(rollout: Rollout, events: list[Event]) -> None:
    rollout, _ = run(rollout, *events)
    if rollout.failures > rollout.max_failures:
        assert rollout.state in (RolloutState.FAILED, RolloutState.ROLLED_BACK)
    if rollout.state in ENDED:
        assert MemberStatus.OFFERED not in {member.status for member in rollout.members}


@given(rollouts, st.lists(any_event, max_size=10), st.data())
def test_it_ends_once_every_device_answers(
    rollout: Rollout, events: list[Event], data: st.DataObject
) -> None:
    rollout, _ = run(rollout, *events, Start(), Resume())
    for _ in range(2):  # canaries, then the rest
        for name in data.draw(st.permutations(DEVICES)):
            verdict = data.draw(st.sampled_from((Committed(name), Failed(name))))
            rollout, _ = step(rollout, verdict)
    assert rollout.state in ENDED


@given(rollouts, st.lists(any_event, max_size=30))
def test_repeating_an_event_adds_nothing(rollout: Rollout, events: list[Event]) -> None:
    """A status may arrive twice: from the device's report and from its twin."""
    for event in events:
        rollout, _ = step(rollout, event)
        assert step(rollout, event) == (rollout, ())
