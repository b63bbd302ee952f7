"""The groups of a module, each one tried before it is believed.

A group is kept only if reordering its channels leaves the network's answer as it is, and if the
network without its last channels answers like the full one in which nobody reads them. What a
module's own code does to sizes (a fixed view, a head count) shows here, and becomes the reason
why those channels stay.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from converters.purity import flat_outputs
from converters.slim.groups import Entry, Found, Group, Held, collect, owner
from converters.slim.narrow import narrow, permute, silence
from converters.slim.values import LayerUse
from converters.slim.walk import Walk

_CLOSE = 2e-3
"""Of the largest output; float sums in another order differ by far less."""

_SIZE_ERRORS = (
    *(RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError),
    AttributeError,
)

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What can be narrowed in a module, what cannot and why, and what its layers cost."""

    groups: tuple[Group, ...]
    held: tuple[Held, ...]
    uses: tuple[LayerUse, ...]


def analyse(module: nn.Module, example: Inputs, *, normalised: bool = False) -> Analysis:
    """Find the groups of a module.

    Args:
        module: in evaluation mode; not changed.
        example: one sample; its numbers do not matter, those of whole-number inputs do.
        normalised: also narrow what LayerNorm takes statistics of. Such a network needs training.

    Returns:
        Groups in the order the network runs them.
    """
    best: Analysis | None = None
    for tie_parts in (False, True):
        walk = Walk(tie_parts=tie_parts)
        walk.run(module, example)
        found = _split_normalised(collect(walk), normalised)
        groups, failed = _tried(module, _noise(example), found)
        analysis = Analysis(groups, (*found.held, *failed), tuple(walk.uses))
        if best is None or _weight(groups) > _weight(best.groups):
            best = analysis
        if not failed:
            break
    if best is None:
        raise RuntimeError("no walk was made")
    return best


def _weight(groups: Sequence[Group]) -> int:
    return sum(len(e.positions) * len(e.positions[0]) for g in groups for e in g.entries)


def _split_normalised(found: Found, allowed: bool) -> Found:
    if allowed:
        return found
    held = [
        Held(group.name, group.size * group.block, "LayerNorm takes its statistics over them")
        for group in found.groups
        if group.normalised
    ]
    groups = tuple(group for group in found.groups if not group.normalised)
    return Found(groups, (*found.held, *held))


def _noise(example: Inputs) -> Inputs:
    """Two samples of noise in place of float inputs: zeros would hide every difference."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(one.shape, generator=generator) if one.is_floating_point() else one
        for one in example
    )


def _tried(module: nn.Module, inputs: Inputs, found: Found) -> tuple[tuple[Group, ...], list[Held]]:
    """All groups at once where that works, else one by one, else all by the same share."""
    groups = _named(found.groups)
    if not groups or not _problem(module, inputs, groups):
        return groups, []
    good: list[Group] = []
    failed: list[tuple[Group, str]] = []
    for group in groups:
        tried, problem = _alone(module, inputs, group)
        if problem:
            failed.append((group, problem))
        else:
            good.append(tried)
    if good and _problem(module, inputs, good):
        failed += [(group, "cannot be narrowed together with others") for group in good]
        good = []
    linked = [replace(group, link="shared") for group, _ in failed]
    if len(linked) > 1 and not _problem(module, inputs, [*good, *linked]):
        names = {group.name for group in linked}
        merged = {group.name: group for group in (*good, *linked)}
        return tuple(merged[g.name] for g in groups if g.name in names | set(merged)), []
    return tuple(good), [Held(g.name, g.size * g.block, problem) for g, problem in failed]


def _alone(module: nn.Module, inputs: Inputs, group: Group) -> tuple[Group, str]:
    """One group tried by itself, if need be with the numbers that count it."""
    problem = _problem(module, inputs, (group,))
    counted = _counted(module, group) if problem else None
    if counted is not None and not _problem(module, inputs, (counted,)):
        return counted, ""
    return group, problem


def _named(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups of one layer get numbers."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        count = seen[group.name] = seen.get(group.name, 0) + 1
        named.append(replace(group, name=f"{group.name}#{count}") if count > 1 else group)
    return tuple(named)


@torch.no_grad()
def _problem(module: nn.Module, inputs: Inputs, groups: Sequence[Group]) -> str:
    """Why a set of groups cannot be narrowed together; empty when it can."""
    turned = copy.deepcopy(module)
    permute(turned, {g.name: list(reversed(range(g.size))) for g in groups}, groups)
    if not _alike(module(*inputs), turned(*inputs)):
        return "depends on the order of its channels in a way the graph does not show"
    for kept in (_even(groups), _uneven(groups)):
        try:
            got = narrow(module, groups, kept)(*inputs)
        except _SIZE_ERRORS as error:  # the user's forward on sizes it did not foresee
            return f"has its size written into forward() ({_first(error)})"
        if not _alike(silence(module, groups, kept)(*inputs), got):
            return "means something else when there are fewer, because forward() divides them up"
    return ""


def _even(groups: Sequence[Group]) -> dict[str, int]:
    """Half of each group."""
    return {group.name: max(1, group.size // 2) for group in groups}


def _uneven(groups: Sequence[Group]) -> dict[str, int]:
    """Another share of each group, but the same for linked ones."""
    shares = (0.75, 0.34, 1.0, 0.5)
    return {
        group.name: group.size * 3 // 4
        if group.link
        else max(1, int(group.size * shares[index % len(shares)]))
        for index, group in enumerate(groups)
    }


def _counted(module: nn.Module, group: Group) -> Group | None:
    """The group with the numbers of its surrounding module that count its channels (heads)."""
    names = {owner(entry.tensor) for entry in group.entries}
    around = {owner(name) for name in names}
    sizes = {group.size: 1} | {group.size * _each(e): _each(e) for e in group.entries}
    found = []
    for path in sorted(around):
        layer = module.get_submodule(path)
        if type(layer).__module__.startswith("torch.nn"):
            continue
        for name, value in vars(layer).items():
            if type(value) is int and value in sizes:
                found.append((path, name, sizes[value]))
    return replace(group, attributes=tuple(found)) if found else None


def _each(entry: Entry) -> int:
    return len(entry.positions[0])


def _alike(one: Any, other: Any) -> bool:
    pairs = list(zip(flat_outputs(one), flat_outputs(other), strict=True))
    return all(
        a.shape == b.shape
        and float((a - b).abs().max()) <= _CLOSE * max(1e-3, float(a.abs().max()))
        for a, b in pairs
    )


def _first(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:120]
