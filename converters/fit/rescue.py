"""Int8 files that miss the accuracy budget: repaired, or mixed with float32 layers, then measured.

Tried once per file for all profiles, and only where it can be enough: the width and the resolution
alone must not have spent the budget already, and the file's memory must be within its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from converters.fit.search import Budget
from converters.rescue import Policy, Rescued
from converters.results import Measured, Repair, Sensitivity
from converters.schemes import mixed_name, parse_scheme
from converters.verify import Reference
from converters.workbench import Workbench


def rescue_misses(
    bench: Workbench,
    measured: Sequence[Measured],
    reference: Reference,
    threads: dict[str, list[int]],
    budget: Budget,
    policy: Policy,
    annotate: Callable[[list[dict[str, Any]]], None],
) -> Rescued:
    """Try to bring the files of one width within the accuracy budget.

    Args:
        bench: of the width.
        measured: all its verified files.
        reference: PyTorch's answers at this width.
        threads: thread counts to time, by format.
        budget: of the user; nothing is tried without a bound on accuracy.
        policy: what may be tried; the drop it allows follows from the budget.
        annotate: writes into built files what they say about themselves.

    Returns:
        The files with the rescued ones in place of what they were. A mixed file has another scheme
        and replaces its int8 file on disk.
    """
    found = list(measured)
    repairs: list[Repair] = []
    scores: list[Sensitivity] = []
    for group in _groups(measured):
        allowed = allowed_drop(reference, group[0].size, budget)
        if allowed is None:
            continue
        mixed = policy.mixed and not _has_mixed(group[0], measured)
        asked = replace(policy, max_drop=allowed, mixed=mixed)
        tried = [item for item in group if _within(item, budget)]
        done = bench.rescue(tried, reference, threads, asked, annotate)
        changed = dict(zip((item.path for item in tried), done.measured, strict=True))
        found = [changed.get(item.path, item) for item in found]
        repairs += done.repairs
        scores += done.sensitivities
    return Rescued(found, tuple(repairs), tuple(scores))


def allowed_drop(reference: Reference, size: str, budget: Budget) -> float | None:
    """What quantization may lose at a resolution; None where there is no bound, or none left."""
    if budget.accuracy_drop is None:
        return None
    spent = reference.accuracy[reference.full] - reference.accuracy[size]
    left = round(budget.accuracy_drop - spent, 9)
    return left if left >= 0 else None


def _groups(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Static int8 files by resolution and format."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for item in measured:
        kind = parse_scheme(item.scheme)
        if kind.mode == "static" and not kind.mixed:
            groups.setdefault((item.size, item.format, item.scheme), []).append(item)
    return list(groups.values())


def _has_mixed(item: Measured, measured: Sequence[Measured]) -> bool:
    """Whether the mixed form is a candidate of its own, built by the same name."""
    mixed = mixed_name(item.scheme)
    return any((o.scheme, o.size, o.format) == (mixed, item.size, item.format) for o in measured)


def _within(item: Measured, budget: Budget) -> bool:
    return budget.memory_mib is None or item.memory_mib <= budget.memory_mib
