"""When a committed release is given up for the one before: pure steps of the machine.

The release before has passed a trial here and has not failed since. It takes the place of the one
that is given up, which is remembered as bad; so its own slot is empty then, and until something
else has been committed there is nothing further to fall back to: nothing flaps.
"""

from __future__ import annotations

from msgspec.structs import replace

from agent.update import outcomes
from agent.update.events import Alert, CollectGarbage, Serve
from agent.update.memory import is_bad, remember
from agent.update.probation import Alarm
from agent.update.state import ReleaseRecord, UpdateState
from agent.update.steps import Step, end, tell
from edge_sdk.contracts.update import RUNNING_PHASES, Phase
from edge_sdk.errors import EdgeError


def unhealthy(state: UpdateState, detail: str) -> Step:
    """The committed release crash-loops; without a fallback go on trying with what there is."""
    if state.phase is Phase.TRIAL or state.serving is None:
        return state, ()
    fallback = proven_fallback(state)
    if fallback is None:
        return state, (Serve(),)
    return _fall_back(state, state.serving, fallback, outcomes.crash_loop(detail))


def degraded(state: UpdateState, alarm: Alarm) -> Step:
    """The committed release does worse than on trial: go back where that promises better.

    While an update is under way it is only told: what comes is about to take its place anyway.
    Accuracy is only told, too. What a stream shows changes with the hour and the season, and the
    release before was measured at another.
    """
    serving, why = state.serving, outcomes.degraded(alarm.detail)
    if serving is None or state.phase is Phase.TRIAL:
        return state, ()
    fallback = proven_fallback(state)
    if state.phase in RUNNING_PHASES or fallback is None or not _promises(fallback, alarm):
        return _alert(state, why)
    return _fall_back(state, serving, fallback, why)


def proven_fallback(state: UpdateState) -> ReleaseRecord | None:
    """The release before, unless it has failed here since."""
    fallback = state.fallback
    if fallback is None or is_bad(state, fallback.digest, fallback.payload_digest):
        return None
    return fallback


def _promises(fallback: ReleaseRecord, alarm: Alarm) -> bool:
    """Whether the release before was better than this one has become, as far as is known."""
    if alarm.kind == "accuracy":
        return False
    slower = fallback.service.p95_ms >= alarm.p95_ms > 0
    return alarm.kind == "errors" or not slower


def _alert(state: UpdateState, why: EdgeError) -> Step:
    """Once per deployment: it stays in the state, and is repeated on connecting."""
    if state.phase is not Phase.COMMITTED:
        return state, (Alert(why.code, why.cause),)
    if state.code:
        return state, ()
    state = replace(state, code=why.code, detail=why.cause)
    return state, tell(state)


def _fall_back(
    state: UpdateState, serving: ReleaseRecord, fallback: ReleaseRecord, why: EdgeError
) -> Step:
    state = replace(
        state,
        slots={state.spare: fallback},
        active=state.spare,
        bad=remember(state.bad, (serving.digest, serving.payload_digest)),
    )
    if state.phase is not Phase.COMMITTED:
        return state, (Alert(why.code, why.cause), Serve(), CollectGarbage())
    return end(state, Phase.ROLLED_BACK, why)
