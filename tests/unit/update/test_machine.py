"""The state machine under arbitrary events in arbitrary order."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.update import events as ev
from agent.update import outcomes
from agent.update.machine import MAX_TRIES, step
from agent.update.probation import Alarm, Kind, Probation
from agent.update.state import MAX_BAD, ReleaseRecord, ServiceRecord, UpdateState
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.manifest import BlobRef
from edge_sdk.contracts.update import FINAL_PHASES, RUNNING_PHASES, Desired, Phase, TrialPolicy

CRASHES = 1
NUMBERS = st.integers(0, 5)
EVENTS = st.one_of(
    st.builds(ev.PreflightPassed),
    st.builds(ev.PreflightPassed, deltas=st.just(("d" * 64,))),
    st.builds(ev.SpaceShort, detail=st.just("full")),
    st.builds(ev.Downloaded),
    st.builds(ev.Rebuilt),
    st.builds(ev.RebuildFailed, detail=st.just("wrong base")),
    st.builds(ev.Verified),
    st.builds(ev.VerifyFailed, detail=st.just("damaged")),
    st.builds(ev.GoldenPassed),
    st.builds(ev.GoldenFailed, detail=st.just("differs")),
    st.builds(ev.TrialPassed, service=st.just(ServiceRecord(labelled=9, correct=9))),
    st.builds(ev.TrialFailed, why=st.just(outcomes.broken("worse"))),
    st.builds(ev.WorkerCrashed, detail=st.just("signal 11")),
    st.builds(ev.ServiceUnhealthy, detail=st.just("loop")),
    st.builds(
        ev.ServiceDegraded,
        alarm=st.builds(
            Alarm,
            kind=st.sampled_from(("latency", "late", "errors", "accuracy")),
            detail=st.just("worse"),
            p95_ms=st.sampled_from((0.0, 40.0)),
            accuracy=st.just(0.5),
        ),
    ),
    st.builds(ev.ServiceMeasured, service=st.just(ServiceRecord(labelled=5, correct=4))),
    st.builds(ev.Refused, why=st.just(outcomes.disk_full("full"))),
)

ON: defaultdict[Phase, ev.Event | None] = defaultdict(
    lambda: None,
    {
        Phase.PREFLIGHT: ev.PreflightPassed(),
        Phase.DOWNLOADING: ev.Downloaded(),
        Phase.RECONSTRUCTING: ev.Rebuilt(),
        Phase.VERIFYING: ev.Verified(),
        Phase.GOLDEN: ev.GoldenPassed(),
        Phase.TRIAL: ev.TrialPassed(ServiceRecord(labelled=9, correct=9)),
    },
)
"""The event that takes each phase forward."""
OFF: defaultdict[Phase, ev.Event | None] = defaultdict(
    lambda: ev.ServiceUnhealthy("loop"),
    {
        Phase.PREFLIGHT: ev.SpaceShort("full"),
        Phase.DOWNLOADING: ev.Refused(outcomes.disk_full("full")),
        Phase.RECONSTRUCTING: ev.RebuildFailed("wrong base"),
        Phase.VERIFYING: ev.VerifyFailed("damaged"),
        Phase.GOLDEN: ev.GoldenFailed("differs"),
        Phase.TRIAL: ev.WorkerCrashed("signal 11"),
    },
)
"""And one that does not."""


def record(number: int) -> ReleaseRecord:
    """Release 5 is release 0 in another envelope."""
    return ReleaseRecord(
        digest=f"{number:064x}",
        payload_digest=f"{number % 5 + 100:064x}",
        release="digits",
        version=str(number),
        sequence=number % 5,
        accuracy=0.9,
        blobs=(f"{number:064x}",),
    )


def desired(number: int, counter: int, deployment: str) -> Desired:
    return Desired(
        device_id="cam-1",
        deployment=deployment,
        counter=counter,
        release="digits",
        version=str(number),
        manifest=BlobRef(digest=record(number).digest, size_bytes=0, chunks=()),
        trial=TrialPolicy(max_worker_crashes=CRASHES),
    )


class Machine(RuleBasedStateMachine):
    """Fires events whether or not they make sense, and holds the rules of the module docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.state = UpdateState()
        self.issued = 0
        self.starts: Counter[tuple[str, str]] = Counter()
        self.failed: set[str] = set()
        """Payloads that failed while they ran, kept apart from the machine's own list."""

    def fire(self, event: ev.Event) -> tuple[ev.Effect, ...]:
        before = self.state
        self.state, effects = step(before, event)
        assert step(before, event) == (self.state, effects), "not a function"
        self._check_activation(before, event, effects)
        self._note_failure(before, event)
        self._check_starts(effects)
        assert self.state.counter >= before.counter
        return effects

    def _check_activation(
        self, before: UpdateState, event: ev.Event, effects: tuple[ev.Effect, ...]
    ) -> None:
        old, new = before.serving, self.state.serving
        if old is not None and new is None:
            assert isinstance(event, ev.Booted), event
        changed = (old and old.payload_digest) != (new and new.payload_digest)
        if not changed:
            return
        gives_way = (ev.ServiceUnhealthy, ev.ServiceDegraded)
        assert isinstance(event, (ev.TrialPassed, ev.GoldenPassed, ev.Booted, *gives_way)), event
        if isinstance(event, gives_way):
            assert before.phase is not Phase.TRIAL
            assert new == before.fallback, "never to anything but the release before"
            assert self.state.fallback is None, "nothing to flap to"
            assert new.payload_digest not in before.bad  # type: ignore[union-attr]
        if isinstance(event, ev.GoldenPassed):
            assert before.fallback is not None
            assert before.fallback.digest == new.digest  # type: ignore[union-attr]
        if isinstance(event, ev.TrialPassed):
            assert before.phase is Phase.TRIAL
        assert any(isinstance(effect, ev.Serve | ev.Commit | ev.RunTrial) for effect in effects)

    def _note_failure(self, before: UpdateState, event: ev.Event) -> None:
        golden = before.phase is Phase.GOLDEN and isinstance(event, ev.GoldenFailed)
        trial = before.phase is Phase.TRIAL and isinstance(event, ev.TrialFailed)
        if (golden or trial) and before.candidate is not None:
            self.failed.add(before.candidate.payload_digest)
        gave_way = isinstance(event, ev.ServiceUnhealthy | ev.ServiceDegraded)
        if gave_way and self.state.serving != before.serving:
            assert before.serving is not None
            self.failed.add(before.serving.payload_digest)

    def _check_starts(self, effects: tuple[ev.Effect, ...]) -> None:
        for effect in effects:
            if not isinstance(effect, ev.RunGolden | ev.RunTrial):
                continue
            assert self.state.tries >= 1, "started without having been counted"
            assert self.state.candidate is not None
            assert self.state.candidate.payload_digest not in self.failed
            assert self.state.desired is not None
            key = (self.state.desired.deployment, type(effect).__name__)
            self.starts[key] += 1
            assert self.starts[key] <= MAX_TRIES + CRASHES, "does not end"

    @rule(number=NUMBERS)
    def wish(self, number: int) -> None:
        self.issued += 1
        before = self.state
        self.fire(ev.DesiredReceived(desired(number, self.issued, f"d{self.issued}")))
        assert self.state.counter == self.issued
        assert self.state.serving == before.serving

    @rule(number=NUMBERS, steps=st.integers(4, 7), well=st.booleans())
    def install(self, number: int, steps: int, well: bool) -> None:
        self.wish(number)
        self.go_on(steps, well)

    @rule(number=NUMBERS, back=st.integers(0, 3))
    def replay(self, number: int, back: int) -> None:
        if self.state.desired is None or self.issued <= back:
            return
        before = self.state
        effects = self.fire(ev.DesiredReceived(desired(number, self.issued - back, "old")))
        assert self.state == before
        assert [type(effect) for effect in effects] == [ev.Notice]

    @rule()
    def withdraw(self) -> None:
        before = self.state
        effects = self.fire(ev.DesiredWithdrawn())
        assert (self.state.slots, self.state.active) == (before.slots, before.active)
        assert (self.state.bad, self.state.counter) == (before.bad, before.counter)
        if before.phase not in RUNNING_PHASES:
            assert (self.state, effects) == (before, ())
            return
        assert self.state.phase in FINAL_PHASES
        assert any(isinstance(e, ev.Serve) for e in effects) == (before.phase is Phase.TRIAL)

    @rule()
    def repeat(self) -> None:
        before = self.state
        if before.desired is None:
            return
        effects = self.fire(ev.DesiredReceived(before.desired))
        if before.code == "link.withdrawn":
            assert self.state.code != before.code
            for key in [key for key in self.starts if key[0] == before.desired.deployment]:
                del self.starts[key]
        else:
            assert self.state == before
            assert [type(effect) for effect in effects] == [ev.Tell]

    @rule()
    def manifest(self) -> None:
        if self.state.desired is not None:
            number = int(self.state.desired.manifest.digest, 16)
            self.fire(ev.ManifestVerified(record(number)))

    @rule(steps=st.integers(1, 7), well=st.booleans())
    def go_on(self, steps: int, well: bool) -> None:
        """What fits the phase, so that late phases are reached often; the last step may fail."""
        for index in range(steps):
            fitting = ON[self.state.phase] if well or index < steps - 1 else OFF[self.state.phase]
            if self.state.phase is Phase.OFFERED:
                self.manifest()
            elif fitting is not None:
                self.fire(fitting)

    @rule(event=EVENTS)
    def anything(self, event: ev.Event) -> None:
        self.fire(event)

    @rule(lose=st.sets(NUMBERS, max_size=1))
    def reboot(self, lose: set[int]) -> None:
        held = {r.digest for r in self.state.slots.values()}
        if self.state.candidate is not None:
            held.add(self.state.candidate.digest)
        lost = {record(number).digest for number in lose}
        effects = self.fire(ev.Booted(frozenset(held - lost)))
        assert any(isinstance(effect, ev.Serve | ev.RunTrial) for effect in effects)
        assert self.state.phase not in {Phase.PREFLIGHT, Phase.DOWNLOADING, Phase.VERIFYING}

    @invariant()
    def the_active_slot_is_filled(self) -> None:
        assert self.state.active is None or self.state.active in self.state.slots

    @invariant()
    def no_bad_release_can_serve(self) -> None:
        for slot in self.state.slots.values():
            assert slot.payload_digest not in self.failed

    @invariant()
    def a_candidate_exists_only_while_running(self) -> None:
        if self.state.phase in FINAL_PHASES or self.state.phase is Phase.IDLE:
            assert self.state.candidate is None
        if self.state.phase in RUNNING_PHASES - {Phase.OFFERED}:
            assert self.state.candidate is not None

    @invariant()
    def the_state_survives_the_disk(self) -> None:
        assert decode(encode(self.state), UpdateState, "state") == self.state
        assert len(self.state.bad) <= MAX_BAD


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestMachine = Machine.TestCase


PROBATION = Probation(frames=100, labelled=100, correct=95)


def drive(state: UpdateState, *events: ev.Event) -> UpdateState:
    for event in events:
        state, _ = step(state, event)
    return state


def happy(number: int, counter: int) -> tuple[ev.Event, ...]:
    return (
        ev.DesiredReceived(desired(number, counter, f"d{counter}")),
        ev.ManifestVerified(record(number)),
        ev.PreflightPassed(),
        ev.Downloaded(),
        ev.Verified(),
        ev.GoldenPassed(),
        ev.TrialPassed(ServiceRecord(labelled=100, correct=95, p95_ms=30.0), "", PROBATION),
    )


def test_two_updates_fill_both_slots() -> None:
    state = drive(UpdateState(), *happy(0, 1), *happy(1, 2))
    assert state.phase is Phase.COMMITTED
    assert state.serving is not None
    assert state.fallback is not None
    assert (state.serving.version, state.fallback.version) == ("1", "0")


def test_going_back_to_the_fallback_skips_the_trial() -> None:
    state = drive(UpdateState(), *happy(0, 1), *happy(1, 2))
    state, effects = step(drive(state, *happy(0, 3)[:5]), ev.GoldenPassed())
    assert state.phase is Phase.COMMITTED
    assert state.serving is not None
    assert state.serving.version == "0"
    assert state.serving.service == ServiceRecord(labelled=100, correct=95, p95_ms=30.0)
    assert state.serving.probation == PROBATION
    assert ev.Serve() in effects


def test_a_wish_during_a_trial_puts_the_committed_release_back_first() -> None:
    state = drive(UpdateState(), *happy(0, 1), *happy(1, 2)[:6])
    assert state.phase is Phase.TRIAL
    state, effects = step(state, ev.DesiredReceived(desired(2, 3, "d3")))
    assert [type(effect) for effect in effects] == [
        ev.Abandon,
        ev.Tell,
        ev.Serve,
        ev.Tell,
        ev.FetchManifest,
    ]
    told = [effect for effect in effects if isinstance(effect, ev.Tell)]
    assert (told[0].desired.deployment, told[0].phase) == ("d2", Phase.ROLLED_BACK)
    assert told[0].code == "trust.superseded"
    assert state.bad == ()
    assert state.phase is Phase.OFFERED


def test_a_committed_release_that_crash_loops_gives_way() -> None:
    state = drive(UpdateState(), *happy(0, 1), *happy(1, 2))
    state, effects = step(state, ev.ServiceUnhealthy("5 crashes in 60 s"))
    assert state.serving is not None
    assert state.serving.version == "0"
    assert state.phase is Phase.ROLLED_BACK
    assert state.code == "gate.crash-loop"
    assert record(1).digest in state.bad
    assert ev.Serve() in effects


def slow(p95_ms: float, kind: Kind = "latency") -> ev.ServiceDegraded:
    return ev.ServiceDegraded(Alarm(kind, "A frame takes longer.", p95_ms, 0.0))


def test_a_committed_release_that_degrades_gives_way() -> None:
    state, effects = step(drive(UpdateState(), *happy(0, 1), *happy(1, 2)), slow(90.0))
    assert state.serving is not None and state.serving.version == "0"
    assert (state.phase, state.code) == (Phase.ROLLED_BACK, "gate.degraded")
    assert record(1).digest in state.bad
    assert ev.Serve() in effects
    assert step(state, slow(900.0))[0].serving == state.serving, "there is nothing left to go to"


@pytest.mark.parametrize(
    ("events", "alarm"),
    [
        ((), slow(90.0)),
        ((*happy(1, 2),), slow(29.0)),
        ((*happy(1, 2),), slow(90.0, "accuracy")),
    ],
    ids=["nothing before", "slower before", "accuracy"],
)
def test_where_going_back_promises_nothing_it_is_told_once(
    events: tuple[ev.Event, ...], alarm: ev.ServiceDegraded
) -> None:
    before = drive(UpdateState(), *happy(0, 1), *events)
    state, effects = step(before, alarm)
    assert (state.slots, state.active, state.bad) == (before.slots, before.active, before.bad)
    assert (state.phase, state.code) == (Phase.COMMITTED, "gate.degraded")
    assert [type(effect) for effect in effects] == [ev.Tell]
    assert step(state, alarm) == (state, ())


def test_an_update_under_way_is_not_disturbed_by_an_alarm() -> None:
    before = drive(UpdateState(), *happy(0, 1), *happy(1, 2), *happy(2, 3)[:3])
    state, effects = step(before, slow(90.0))
    assert (state, [type(effect) for effect in effects]) == (before, [ev.Alert])
    on_trial = drive(before, *happy(2, 3)[3:6])
    assert step(on_trial, slow(90.0)) == (on_trial, ())


def test_a_lost_active_release_is_installed_anew() -> None:
    state = drive(UpdateState(), *happy(0, 1))
    state = drive(state, ev.Booted(frozenset()))
    assert state.serving is None
    assert state.counter == 1
    state, effects = step(state, ev.DesiredReceived(desired(0, 1, "d1")))
    assert ev.FetchManifest() in effects


def test_boots_during_a_trial_are_counted() -> None:
    state = drive(UpdateState(), *happy(0, 1), *happy(1, 2)[:6])
    intact = frozenset({record(0).digest, record(1).digest})
    for tries in range(2, MAX_TRIES + 1):
        state, effects = step(state, ev.Booted(intact))
        assert state.tries == tries
        assert ev.RunTrial() in effects
    state, effects = step(state, ev.Booted(intact))
    assert state.phase is Phase.ROLLED_BACK
    assert state.code == "gate.crash-loop"
    assert ev.Serve() in effects


def test_crashes_during_a_trial_are_counted() -> None:
    state = drive(UpdateState(), *happy(0, 1), *happy(1, 2)[:6])
    state, effects = step(state, ev.WorkerCrashed("signal 11"))
    assert effects == (ev.RunTrial(),)
    state, effects = step(state, ev.WorkerCrashed("signal 11"))
    assert state.phase is Phase.ROLLED_BACK
    assert state.code == "gate.crash-loop"
