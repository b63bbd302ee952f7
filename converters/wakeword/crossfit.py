"""What networks would answer to people who taught them nothing, known without sparing any.

A cutoff that is chosen on other files of the folders that teach is chosen on the same speakers and
rooms: the network knows them, and takes several times as much for the phrase elsewhere. So the
folders are dealt into groups, for each group a network learns from all the others, and this one
hears it (cross-fitting, Chernozhukov et al. 2018, "Double/debiased machine learning").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from converters.wakeword.ears import Halves
from converters.wakeword.head_network import score_embeddings
from converters.wakeword.learn import Told
from converters.wakeword.learn_head import HeadLessons, HeadPlan, learn_head
from edge_sdk.audio.samples import Floats

FEWEST: Final = 3
"""Folders: of two, the other one alone would teach, which says little about both."""
_GROUPS: Final = 3


def answers_of_strangers(
    lessons: HeadLessons,
    folders: Mapping[str, Sequence[Halves]],
    plan: HeadPlan,
    report: Callable[[Sequence[str], Told], None] = lambda group, told: None,
) -> dict[str, list[Floats]]:
    """Scores of each folder's streams by a network that has heard nothing of that folder.

    Args:
        lessons: everything, these folders included.
        folders: streams to judge, each a list of embeddings (T, 96).
        plan: of each of the networks.
        report: told the folders left out, and how far it is.
    """
    found: dict[str, list[Floats]] = {}
    for group in dealt({name: sum(map(len, rows)) for name, rows in folders.items()}):
        network = learn_head(
            lessons.without(group),
            plan,
            lambda told, group=group: report(group, told),  # type: ignore[misc]
        )
        for name in group:
            found[name] = [score_embeddings(network, stream) for stream in folders[name]]
    return found


def dealt(sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Names in groups that are alike in size; none is empty."""
    groups: list[list[str]] = [[] for _ in range(min(_GROUPS, len(sizes)))]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(groups, key=lambda group: (sum(sizes[one] for one in group), len(group))).append(name)
    return [tuple(group) for group in groups]
