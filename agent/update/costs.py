"""What an update has cost so far: pure sums, kept in the state so that they outlive a restart.

A cut costs at most what was counted since the state was last written; of that, what had come
before is found again on the flash (:func:`planned`).
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from edge_sdk.contracts.update import Phase, UpdateCosts


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of this process at one moment."""

    at_s: float
    """On the monotonic clock."""
    received_bytes: int = 0
    retries: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a release takes on this device, and what of it is there."""

    offered_bytes: int = 0
    """Its files, whole, and its envelope."""
    total_bytes: int = 0
    """The blobs they are made from, and the envelope."""
    missing_bytes: int = 0
    saved_delta_bytes: int = 0


def charged(costs: UpdateCosts, phase: Phase, since: Reading, now: Reading) -> UpdateCosts:
    """With what happened in ``phase`` between two readings of one process."""
    spent_s = costs.seconds_in.get(phase, 0.0) + max(0.0, now.at_s - since.at_s)
    return replace(
        costs,
        bytes_received=costs.bytes_received + now.received_bytes - since.received_bytes,
        bytes_written=costs.bytes_written + now.written_bytes - since.written_bytes,
        chunk_retries=costs.chunk_retries + now.retries - since.retries,
        seconds_in={**costs.seconds_in, phase.value: round(spent_s, 3)},
    )


def planned(costs: UpdateCosts, plan: Plan) -> UpdateCosts:
    """With what is known once the manifest is open and the download is about to begin.

    Planned a second time, after a restart, what lies on the flash came with this update, unless it
    was there the first time.
    """
    there = plan.total_bytes - plan.missing_bytes
    first = not costs.bytes_offered
    reused = max(0, there - costs.bytes_received) if first else min(costs.bytes_reused, there)
    recipes = plan.offered_bytes - plan.total_bytes - plan.saved_delta_bytes
    return replace(
        costs,
        bytes_offered=plan.offered_bytes,
        bytes_total=plan.total_bytes,
        bytes_reused=reused,
        bytes_received=max(costs.bytes_received, there - reused),
        bytes_saved_recipes=max(0, recipes),
        bytes_saved_delta=plan.saved_delta_bytes,
    )
