"""What the machine's steps are made of: entering a phase, ending a deployment, telling of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from msgspec.structs import replace

from agent.update.events import Abandon, CollectGarbage, Effect, Serve, Tell
from agent.update.state import UpdateState
from edge_sdk.contracts.update import Phase
from edge_sdk.errors import EdgeError

Step: TypeAlias = tuple[UpdateState, tuple[Effect, ...]]


def enter(state: UpdateState, phase: Phase, *work: Effect) -> Step:
    """Go on to ``phase`` and do its work."""
    state = replace(state, phase=phase, code="", detail="")
    return state, (*tell(state), *work)


def end(state: UpdateState, phase: Phase, outcome: EdgeError | str) -> Step:
    """End the deployment; a rollback puts the committed release back into service."""
    if isinstance(outcome, EdgeError):
        code, detail = outcome.code, outcome.cause
    else:
        code, detail = "", outcome
    state = replace(
        state, phase=phase, code=code, detail=detail, candidate=None, tries=0, crashes=0, deltas=()
    )
    back: Iterable[Effect] = (Serve(),) if phase is Phase.ROLLED_BACK else ()
    return state, (Abandon(), *back, *tell(state), CollectGarbage())


def tell(state: UpdateState) -> tuple[Tell, ...]:
    """Say where the deployment stands, if there is one."""
    if state.desired is None:
        return ()
    return (Tell(state.desired, state.phase, state.code, state.detail, state.costs),)
