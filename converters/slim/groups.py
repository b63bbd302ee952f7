"""Groups of channels that live and die together. Pure data, and how they are found.

A *channel* here is everything that must go when one channel goes: a row of the convolution that
makes it, its place in the BatchNorm, a column of every layer that reads it, and the same in every
layer that a residual sum ties to it. Channels of the same make form a group; within one they may
be reordered freely, which changes nothing, so the least important ones can be put last and a
narrower network is the beginning of a wider one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from converters.slim.atoms import FIXED
from converters.slim.walk import Walk


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a group's channels lie along one axis of one tensor."""

    tensor: str
    """Name in the module's state."""
    axis: int
    reads: bool
    """The layer sums over this axis: these are its inputs."""
    positions: tuple[tuple[int, ...], ...]
    """By channel, the indexes along the axis; equally many for each."""


@dataclass(frozen=True, slots=True)
class Group:
    """Interchangeable channels."""

    name: str
    """Of the first layer that makes them."""
    entries: tuple[Entry, ...]
    normalised: bool = False
    """LayerNorm takes its statistics over them: a narrower network is another function."""
    attributes: tuple[tuple[str, str, int], ...] = ()
    """(module, attribute, value per channel): numbers in the module that count the channels."""
    link: str = ""
    """Groups with the same link must keep the same share: forward() cuts them up together."""

    @property
    def size(self) -> int:
        """How many channels there are at full width."""
        return len(self.entries[0].positions)

    @property
    def block(self) -> int:
        """Outputs of the layer that makes them per channel: 1, or the size of a head or group."""
        written = [e for e in self.entries if not e.reads] or list(self.entries)
        return min(len(entry.positions[0]) for entry in written)

    def least(self, round_to: int) -> int:
        """The fewest channels that fill ``round_to`` outputs."""
        return min(self.size, max(1, math.ceil(round_to / self.block)))

    def step(self, round_to: int) -> int:
        """Channels per step of ``round_to`` outputs."""
        return max(1, math.ceil(round_to / self.block))


@dataclass(frozen=True, slots=True)
class Held:
    """Channels that stay, and why."""

    name: str
    channels: int
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk over a module found, before it is tried."""

    groups: tuple[Group, ...]
    held: tuple[Held, ...]


def collect(walk: Walk) -> Found:
    """The groups that a walk has seen."""
    places: dict[int, dict[tuple[str, int], list[int]]] = {}
    for key, labels in walk.axes.items():
        for position, atom in enumerate(labels.tolist()):
            root = walk.atoms.root(atom)
            places.setdefault(root, {}).setdefault(key, []).append(position)
    makes: dict[tuple[object, ...], list[int]] = {}
    held: dict[tuple[str, str], int] = {}
    for root, found in places.items():
        reason = walk.atoms.reason(root)
        if root == FIXED or reason:
            _count_held(held, found, reason, walk)
            continue
        make = tuple(sorted((*key, len(where)) for key, where in found.items()))
        makes.setdefault(make, []).append(root)
    groups = []
    for roots in makes.values():
        group = _group(walk, places, roots)
        if group.size < 2 or not any(entry.reads for entry in group.entries):
            name = (group.name, "is one block that cannot be divided" if group.size < 2 else "")
            held[name] = held.get(name, 0) + group.size * group.block
        else:
            groups.append(group)
    refused = [Held(name, 0, reason) for name, reason in walk.refused.items()]
    reasons = [Held(n, count, why) for (n, why), count in held.items() if why]
    return Found(tuple(groups), (*refused, *reasons))


def _count_held(
    held: dict[tuple[str, str], int],
    found: Mapping[tuple[str, int], list[int]],
    reason: str,
    walk: Walk,
) -> None:
    written = [key for key in found if key not in walk.reads]
    if reason and written:
        name = owner(written[0][0])
        count = min(len(found[key]) for key in written)
        held[name, reason] = held.get((name, reason), 0) + count


def _group(
    walk: Walk, places: Mapping[int, Mapping[tuple[str, int], list[int]]], roots: Iterable[int]
) -> Group:
    keys = list(places[next(iter(roots))])
    ordered = sorted(roots, key=lambda root: places[root][keys[0]])
    entries = tuple(
        Entry(name, axis, (name, axis) in walk.reads, _along(places, ordered, (name, axis)))
        for name, axis in keys
    )
    writers = [entry for entry in entries if not entry.reads] or list(entries)
    normalised = any(walk.atoms.is_normalised(root) for root in ordered)
    return Group(owner(writers[0].tensor) or writers[0].tensor, entries, normalised)


def _along(
    places: Mapping[int, Mapping[tuple[str, int], list[int]]],
    roots: Iterable[int],
    key: tuple[str, int],
) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(places[root][key]) for root in roots)


def owner(tensor: str) -> str:
    """The module that a tensor belongs to."""
    return tensor.rpartition(".")[0]


def kept_positions(
    groups: Iterable[Group], kept: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, int], list[int]]:
    """Indexes that stay along every axis that becomes shorter.

    Args:
        groups: all that may be narrowed.
        kept: channels that stay by group name; groups not named stay whole.
        shapes: of the full module's tensors.
    """
    dropped: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        for entry in group.entries:
            for positions in entry.positions[kept.get(group.name, group.size) :]:
                dropped.setdefault((entry.tensor, entry.axis), set()).update(positions)
    return {
        (name, axis): [i for i in range(shapes[name][axis]) if i not in gone]
        for (name, axis), gone in dropped.items()
    }


def shapes_of(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of a module's tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
