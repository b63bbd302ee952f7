"""What updates cost, added up and put into words."""

from __future__ import annotations

from collections.abc import Iterable

from edge_sdk.contracts.update import UpdateCosts


def added(costs: Iterable[UpdateCosts]) -> UpdateCosts:
    """The sum over several devices."""
    numbers: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for one in costs:
        for name in UpdateCosts.__struct_fields__:
            value = getattr(one, name)
            if name != "seconds_in":
                numbers[name] = numbers.get(name, 0) + value
        for phase, spent_s in one.seconds_in.items():
            seconds[phase] = seconds.get(phase, 0.0) + spent_s
    return UpdateCosts(**numbers, seconds_in=seconds)


def in_words(costs: UpdateCosts) -> str:
    """One sentence; empty while nothing is known."""
    if not costs.bytes_offered:
        return ""
    parts = [f"{_mb(costs.bytes_received)} received for {_mb(costs.bytes_offered)} offered"]
    saved = {
        "were there already": costs.bytes_reused,
        "saved by recipes": costs.bytes_saved_recipes,
        "saved by deltas": costs.bytes_saved_delta,
        "written to flash": costs.bytes_written,
    }
    parts += [f"{_mb(size)} {what}" for what, size in saved.items() if size]
    if costs.chunk_retries:
        parts.append(f"{costs.chunk_retries} chunks asked for again")
    return ", ".join(parts) + "."


def times_in_words(costs: UpdateCosts) -> str:
    """``12 s: downloading 10, trial 2``, the longest first; empty when nothing took any time."""
    took = {phase: spent for phase, spent in costs.seconds_in.items() if spent >= 0.05}
    if not took:
        return ""
    longest = sorted(took.items(), key=lambda item: -item[1])[:3]
    text = ", ".join(f"{phase} {spent:.3g}" for phase, spent in longest)
    return f"{sum(took.values()):.3g} s: {text}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
