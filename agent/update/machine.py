"""The update state machine: a pure function from a state and an event to a state and effects.

::

    offered -> preflight -> downloading (-> reconstructing) -> verifying -> golden -> trial
                                                                          trial -> committed
       any of them -> rejected           trial, committed -> rolled_back

Rules that hold whatever the order of events (the property tests check them):

* A release becomes active only in one step: the one that ends its trial well.
* The committed release is never touched before that, so it can always serve.
* A start of a candidate is counted in the state before it happens.
* A release that failed its golden test, its trial or in service is never started again.
* A committed release gives way to the one before only, and that one has proven itself here.
* An outdated desired state (lower counter) changes nothing.
* Deltas save bytes and nothing depends on them: what cannot be made from one is fetched whole.
* A withdrawn one, which nobody signs, stops what is under way and touches nothing committed.

A newer desired state supersedes a running update at once. During a trial the committed release is
put back first, because a candidate that has not proven itself must not serve while something else
is installed. Supersession says nothing about the candidate, so it is not marked bad.

Installing an *older* version is legal: the fleet key signed the wish. Replays are caught by the
counter, not by version numbers. A release still in the spare slot has passed its trial on this
device before and is committed right after its golden test.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agent.update import outcomes
from agent.update.costs import planned
from agent.update.events import (
    Abandon,
    Booted,
    CheckPreflight,
    CollectGarbage,
    Commit,
    DesiredReceived,
    DesiredWithdrawn,
    Downloaded,
    Effect,
    Event,
    FetchBlobs,
    FetchManifest,
    GoldenFailed,
    GoldenPassed,
    ManifestVerified,
    Notice,
    PreflightPassed,
    Rebuild,
    RebuildFailed,
    Rebuilt,
    Refused,
    RunGolden,
    RunTrial,
    Serve,
    ServiceDegraded,
    ServiceMeasured,
    ServiceUnhealthy,
    SpaceShort,
    Tell,
    TrialFailed,
    TrialPassed,
    Verified,
    VerifyBlobs,
    VerifyFailed,
    WorkerCrashed,
)
from agent.update.falling_back import degraded, unhealthy
from agent.update.memory import condemn, contract_change, drop_damaged, is_bad
from agent.update.probation import Probation
from agent.update.state import ReleaseRecord, ServiceRecord, UpdateState
from agent.update.steps import Step, end, enter, tell
from edge_sdk.contracts.update import RUNNING_PHASES, Desired, Phase, UpdateCosts
from edge_sdk.errors import EdgeError

MAX_TRIES = 3
"""Starts of a candidate in one phase, boots of the agent included."""
MAX_VERIFY_TRIES = 3
MAX_REBUILDS = 2
"""Times that files are made from deltas before they are fetched whole."""


def step(state: UpdateState, event: Event) -> Step:
    """The next state, and what to do once it is on disk.

    An event that does not fit the phase changes nothing: it belongs to work that was abandoned.
    """
    match event:
        case Booted():
            return _booted(state, event.intact)
        case DesiredReceived():
            return _desired(state, event.desired)
        case DesiredWithdrawn():
            return _refused(state, outcomes.withdrawn())
        case ServiceMeasured():
            return _measured(state, event.service), ()
        case ServiceUnhealthy():
            return unhealthy(state, event.detail)
        case ServiceDegraded():
            return degraded(state, event.alarm)
        case Refused():
            return _refused(state, event.why)
        case _:
            phase, handler = _HANDLERS[type(event)]
            return handler(state, event) if state.phase is phase else (state, ())


def _manifest_verified(state: UpdateState, event: ManifestVerified) -> Step:
    if is_bad(state, event.candidate.digest, event.candidate.payload_digest):
        return _known_bad(state)
    if state.serving is not None and state.serving.payload_digest == event.candidate.payload_digest:
        return _resigned(state, event.candidate, state.serving)
    changed = contract_change(state, event.candidate)
    if changed:
        return _refused(state, outcomes.contract_changed(changed))
    # Only now is it known what to keep of earlier downloads; the rest makes room.
    state = replace(state, candidate=event.candidate)
    return enter(state, Phase.PREFLIGHT, CollectGarbage(), _look(state))


def _look(state: UpdateState) -> CheckPreflight:
    return CheckPreflight(whole=state.rebuilds >= MAX_REBUILDS)


def _resigned(state: UpdateState, candidate: ReleaseRecord, serving: ReleaseRecord) -> Step:
    """The active release in another envelope: nothing to prove, but a new name to remember."""
    record = replace(candidate, service=serving.service, probation=serving.probation)
    slots = {**state.slots, state.active or "a": record}
    state, effects = end(
        replace(state, slots=slots), Phase.COMMITTED, "It was active already, signed differently."
    )
    return state, (Serve(), *effects)


def _preflight_passed(state: UpdateState, event: PreflightPassed) -> Step:
    costs = planned(state.costs, event.plan)
    state = replace(state, tries=0, deltas=event.deltas, costs=costs)
    return enter(state, Phase.DOWNLOADING, FetchBlobs())


def _space_short(state: UpdateState, event: SpaceShort) -> Step:
    """Give up the fallback before giving up the update."""
    if state.fallback is None and not state.salvaged:
        return _refused(state, outcomes.disk_full(event.detail))
    slots = {name: record for name, record in state.slots.items() if name != state.spare}
    return replace(state, slots=slots, salvaged=False), (CollectGarbage(), _look(state))


def _downloaded(state: UpdateState, _: Downloaded) -> Step:
    if state.deltas:
        state = replace(state, rebuilds=state.rebuilds + 1)
        return enter(state, Phase.RECONSTRUCTING, Rebuild())
    return enter(state, Phase.VERIFYING, VerifyBlobs())


def _rebuild_failed(state: UpdateState, event: RebuildFailed) -> Step:
    costs = planned(state.costs, event.plan)
    state = replace(state, phase=Phase.DOWNLOADING, code="", detail=event.detail, costs=costs)
    state = replace(state, deltas=(), rebuilds=MAX_REBUILDS)
    return state, (*tell(state), FetchBlobs(whole=True))


def _rebuilt(state: UpdateState, _: Rebuilt) -> Step:
    # The deltas stay until the end: beside their files they tell, after a restart, what was made.
    return enter(state, Phase.VERIFYING, VerifyBlobs())


def _verified(state: UpdateState, _: Verified) -> Step:
    return enter(replace(state, tries=1), Phase.GOLDEN, RunGolden())


def _verify_failed(state: UpdateState, event: VerifyFailed) -> Step:
    if state.tries + 1 >= MAX_VERIFY_TRIES:
        return _refused(state, outcomes.damaged(event.detail))
    state = replace(state, tries=state.tries + 1, deltas=())
    return enter(state, Phase.DOWNLOADING, FetchBlobs(whole=True))


def _golden_passed(state: UpdateState, _: GoldenPassed) -> Step:
    candidate, fallback = state.candidate, state.fallback
    if candidate is not None and fallback is not None and fallback.digest == candidate.digest:
        detail = "It has passed its trial here before."
        return _committed(state, fallback.service, fallback.probation, detail, Serve())
    return enter(replace(state, tries=1, crashes=0), Phase.TRIAL, RunTrial())


def _golden_failed(state: UpdateState, event: GoldenFailed) -> Step:
    return end(condemn(state), Phase.REJECTED, outcomes.golden_failed(event.detail))


def _trial_passed(state: UpdateState, event: TrialPassed) -> Step:
    return _committed(state, event.service, event.probation, event.detail, Commit())


def _trial_failed(state: UpdateState, event: TrialFailed) -> Step:
    return end(condemn(state), Phase.ROLLED_BACK, event.why)


def _worker_crashed(state: UpdateState, event: WorkerCrashed) -> Step:
    allowed = state.desired.trial.max_worker_crashes if state.desired else 0
    state = replace(state, crashes=state.crashes + 1)
    if state.crashes > allowed:
        return _trial_failed(state, TrialFailed(outcomes.crash_loop(event.detail)))
    return state, (RunTrial(),)


_HANDLERS: dict[type, tuple[Phase, Callable[..., Step]]] = {
    ManifestVerified: (Phase.OFFERED, _manifest_verified),
    PreflightPassed: (Phase.PREFLIGHT, _preflight_passed),
    SpaceShort: (Phase.PREFLIGHT, _space_short),
    Downloaded: (Phase.DOWNLOADING, _downloaded),
    Rebuilt: (Phase.RECONSTRUCTING, _rebuilt),
    RebuildFailed: (Phase.RECONSTRUCTING, _rebuild_failed),
    Verified: (Phase.VERIFYING, _verified),
    VerifyFailed: (Phase.VERIFYING, _verify_failed),
    GoldenPassed: (Phase.GOLDEN, _golden_passed),
    GoldenFailed: (Phase.GOLDEN, _golden_failed),
    TrialPassed: (Phase.TRIAL, _trial_passed),
    TrialFailed: (Phase.TRIAL, _trial_failed),
    WorkerCrashed: (Phase.TRIAL, _worker_crashed),
}
"""Events that mean something in one phase only."""


def _booted(state: UpdateState, intact: frozenset[str]) -> Step:
    state = drop_damaged(state, intact)
    again: tuple[Effect, ...]
    match state.phase:
        case Phase.GOLDEN | Phase.TRIAL if _candidate_in(state, intact):
            state, again = _start_again(state)
        case phase if phase in RUNNING_PHASES:
            # Whatever was fetched is found again and reused; what was verified is verified anew.
            state = replace(state, phase=Phase.OFFERED, candidate=None, tries=0, crashes=0)
            again = (Serve(), *tell(state), FetchManifest())
        case _:
            again = (Serve(), *tell(state))
    return state, (CollectGarbage(), *again)


def _candidate_in(state: UpdateState, intact: frozenset[str]) -> bool:
    return state.candidate is not None and state.candidate.digest in intact


def _start_again(state: UpdateState) -> tuple[UpdateState, tuple[Effect, ...]]:
    """The agent went down while the candidate ran; it gets a bounded number of further starts."""
    if state.tries >= MAX_TRIES:
        detail = f"The agent went down {state.tries} times while it ran."
        if state.phase is Phase.GOLDEN:
            state, effects = _golden_failed(state, GoldenFailed(detail))
            return state, (Serve(), *effects)
        return _trial_failed(state, TrialFailed(outcomes.crash_loop(detail)))
    state = replace(state, tries=state.tries + 1)
    if state.phase is Phase.GOLDEN:
        return state, (Serve(), *tell(state), RunGolden())
    return state, (*tell(state), RunTrial())


def _desired(state: UpdateState, desired: Desired) -> Step:
    known = state.desired is not None and state.desired.deployment == desired.deployment
    resumes = known and state.code == outcomes.withdrawn().code
    if known and not resumes:
        state = _reissued(state, desired)
        return state, tell(state)
    stale = desired.counter < state.counter
    if stale or (desired.counter == state.counter and state.desired is not None and not resumes):
        why = outcomes.replayed(desired.counter, state.counter)
        return state, (Notice(why.code, why.cause),)
    state, abandoned = _supersede(state, desired)
    state = replace(
        state,
        desired=desired,
        counter=desired.counter,
        phase=Phase.OFFERED,
        candidate=None,
        tries=0,
        crashes=0,
        deltas=(),
        rebuilds=0,
        code="",
        detail="",
        costs=UpdateCosts(),
    )
    state, effects = _offered(state, desired)
    return state, (*abandoned, *effects)


def _reissued(state: UpdateState, desired: Desired) -> UpdateState:
    """The same wish under a newer counter, which the device's answers then name."""
    before = state.desired
    if before is None or desired.counter <= state.counter or desired.manifest != before.manifest:
        return state
    return replace(state, desired=desired, counter=desired.counter)


def _offered(state: UpdateState, desired: Desired) -> Step:
    if state.serving is not None and state.serving.digest == desired.manifest.digest:
        return end(state, Phase.COMMITTED, "It was active already.")
    if is_bad(state, desired.manifest.digest):
        return _known_bad(state)
    return enter(state, Phase.OFFERED, FetchManifest())


def _supersede(state: UpdateState, by: Desired) -> Step:
    """Leave a running update cleanly."""
    if state.phase not in RUNNING_PHASES or state.desired is None:
        return state, ()
    in_trial = state.phase is Phase.TRIAL
    phase = Phase.ROLLED_BACK if in_trial else Phase.REJECTED
    why = outcomes.superseded(by.deployment)
    told = Tell(state.desired, phase, why.code, why.cause, state.costs)
    return state, (Abandon(), told, *((Serve(),) if in_trial else ()))


def _measured(state: UpdateState, service: ServiceRecord) -> UpdateState:
    if state.active is None or state.serving is None:
        return state
    slots = {**state.slots, state.active: replace(state.serving, service=service)}
    return replace(state, slots=slots)


def _refused(state: UpdateState, why: EdgeError) -> Step:
    if state.phase not in RUNNING_PHASES:
        return state, ()
    phase = Phase.ROLLED_BACK if state.phase is Phase.TRIAL else Phase.REJECTED
    return end(state, phase, why)


def _known_bad(state: UpdateState) -> Step:
    return end(state, Phase.REJECTED, outcomes.known_bad())


def _committed(
    state: UpdateState,
    service: ServiceRecord,
    probation: Probation | None,
    detail: str,
    how: Effect,
) -> Step:
    if state.candidate is None:
        return state, ()
    record = replace(state.candidate, service=service, probation=probation)
    slots = {**state.slots, state.spare: record}
    state = replace(state, slots=slots, active=state.spare, candidate=None, salvaged=False)
    state, effects = end(state, Phase.COMMITTED, detail)
    return state, (how, *effects)
