"""What the state remembers about releases: pure changes of it that the machine's steps share."""

from __future__ import annotations

from msgspec.structs import replace

from agent.update.input_contract import difference
from agent.update.state import MAX_BAD, ReleaseRecord, UpdateState
from edge_sdk.contracts.update import RUNNING_PHASES, Phase


def drop_damaged(state: UpdateState, intact: frozenset[str]) -> UpdateState:
    """Forget releases whose files are gone; serve from what is left.

    When the active release was lost, the deployment is forgotten too, so that the broker's
    retained desired state installs it anew. The counter stays.
    """
    slots = {name: record for name, record in state.slots.items() if record.digest in intact}
    if state.active is None or state.active in slots:
        return replace(state, slots=slots)
    active = state.spare if state.spare in slots else None
    state = replace(state, slots=slots, active=active)
    if state.phase in RUNNING_PHASES:
        return state
    return replace(state, phase=Phase.IDLE, desired=None, code="", detail="")


def contract_change(state: UpdateState, candidate: ReleaseRecord) -> str:
    """What has changed unasked; a release that has served here before is nothing new."""
    serving, before = state.serving, state.fallback
    known = before is not None and before.payload_digest == candidate.payload_digest
    meant = state.desired is not None and state.desired.new_contract
    if serving is None or known or meant:
        return ""
    return difference(candidate.contract, serving.contract)


def condemn(state: UpdateState) -> UpdateState:
    """Remember the candidate as bad; it must not come back as the fallback either."""
    if state.candidate is None:
        return state
    digests = (state.candidate.digest, state.candidate.payload_digest)
    slots = {
        name: record
        for name, record in state.slots.items()
        if name == state.active or record.payload_digest != state.candidate.payload_digest
    }
    return replace(state, slots=slots, bad=remember(state.bad, digests))


def remember(bad: tuple[str, ...], digests: tuple[str, ...]) -> tuple[str, ...]:
    """The bad list with these at its end, without the oldest where it is too long."""
    return (*(known for known in bad if known not in digests), *digests)[-MAX_BAD:]


def is_bad(state: UpdateState, *digests: str) -> bool:
    """Whether a release with one of these digests has failed here."""
    return any(digest in state.bad for digest in digests)
