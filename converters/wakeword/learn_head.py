"""Learning one phrase from embeddings of speech: single moments, right or wrong.

The moments shortly after a phrase's end are right, those before its middle and all of everything
else are wrong. Again and again the networks hear all that is wrong, and what they would have taken
for the phrase makes up a good part of what they see next. Many right moments hold a little of the
background's, blended as embeddings (Zhang et al. 2018, "mixup"), and stay right: few voices said
them, and there is more between two embeddings than rooms and noises make. Learning ends early: the
voices are soon known by heart, people are not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from converters.foreign.openwake import STEP_S, WIDTH
from converters.wakeword.ears import Halves
from converters.wakeword.head_network import WINDOWS, HeadNetwork, joined, windows_of
from converters.wakeword.learn import Told
from converters.wakeword.pace import pace

_LATE: Final = 4
"""Steps after the one in which the phrase ends that are right as well."""
_BEGUN: Final = 0.5
"""Share of the phrase before which a moment is wrong."""
_AT_ONCE: Final = 8192
_WORST: Final = 20_000
_LEAST_WORST: Final = 4_000
_HARD_LOGIT: Final = -3.0
_WARM_STEPS: Final = 100
_LEAST_RATE: Final = 0.01
_BLEND: Final = 0.35
"""Of the background in a right moment, at most."""
_SOFT: Final = 0.01
"""What is right is so for all but so much: nobody can be certain of the end of a word."""

Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """How long to learn, and how."""

    networks: int = 3
    """Joined to one: what a single one takes for the phrase is a matter of chance."""
    steps: int = 1000
    batch: int = 512
    learning_rate: float = 1e-3
    hidden: int = 40
    dropout: float = 0.3
    searches: int = 3
    """Times that everything is searched for mistakes."""
    blended: float = 0.7
    """Share of the right moments that hold some of the background's."""
    seed: int = 0


@dataclass
class HeadLessons:
    """Embeddings (T, 96) to learn from."""

    phrases: list[tuple[Halves, int, int]] = field(default_factory=list)
    """With the step in which the phrase begins, and the one in which it ends."""
    others: list[Halves] = field(default_factory=list)
    """Other words."""
    streams: dict[str, list[Halves]] = field(default_factory=dict)
    """Hours without the phrase, by the folder that they come from."""
    again: dict[str, list[Halves]] = field(default_factory=dict)
    """The same elsewhere."""

    def without(self, folders: Collection[str]) -> HeadLessons:
        """What teaches nothing about these folders."""
        left = [
            {name: rows for name, rows in hours.items() if name not in folders}
            for hours in (self.streams, self.again)
        ]
        return HeadLessons(self.phrases, self.others, *left)


class _Moments:
    """All rows end to end, and which of them end a window that is right or wrong."""

    def __init__(self, lessons: HeadLessons) -> None:
        self._rows: list[Halves] = []
        self._count = 0
        right, before = [], []
        for rows, start, end in lessons.phrases:
            right.append(self._add(rows, end, end + _LATE + 1))
            begun = int(start + _BEGUN * (end - start))
            before.append(self._count - len(rows) + np.arange(WINDOWS - 1, max(WINDOWS - 1, begun)))
        self.right = _indexes(right)
        self.others = _indexes([*before, *(self._add(rows) for rows in lessons.others)])
        hours = (*lessons.streams.values(), *lessons.again.values())
        self.streams = _indexes([self._add(rows) for many in hours for rows in many])
        self.rows = torch.from_numpy(
            np.concatenate([np.zeros((0, WIDTH), np.float16), *self._rows])
        )
        self._windows = windows_of(self.rows)

    def _add(self, rows: Halves, first: int = 0, last: int | None = None) -> Indexes:
        begin = self._count
        self._rows.append(rows)
        self._count += len(rows)
        until = len(rows) if last is None else min(last, len(rows))
        return begin + np.arange(max(first, WINDOWS - 1), max(until, WINDOWS - 1, first))

    def windows(self, ends: Indexes) -> Tensor:
        """(N, windows, 96) that end there."""
        return self._windows[torch.from_numpy(ends - WINDOWS + 1)].float()


def _indexes(parts: Sequence[Indexes]) -> Indexes:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def learn_head(
    lessons: HeadLessons, plan: HeadPlan, report: Callable[[Told], None] = lambda told: None
) -> HeadNetwork:
    """Several networks from different beginnings, as one in evaluation mode."""
    moments, threads = _Moments(lessons), torch.get_num_threads()
    torch.set_num_threads(1)  # more are slower on networks so small
    try:
        return joined([_Learner(moments, plan, at, report).run() for at in range(plan.networks)])
    finally:
        torch.set_num_threads(threads)


class _Learner:
    """One network."""

    def __init__(
        self, moments: _Moments, plan: HeadPlan, number: int, report: Callable[[Told], None]
    ) -> None:
        torch.manual_seed(plan.seed + number)
        self._chance = np.random.default_rng([plan.seed, number])
        self._moments, self._plan, self._report = moments, plan, report
        self._before = number * plan.steps
        some = moments.rows[::7].float()
        self._network = HeadNetwork(some.mean(0), some.std(0) + 1e-3, plan.hidden, plan.dropout)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), plan.learning_rate, weight_decay=1e-2
        )
        self._hard = np.zeros(0, np.int64)

    def run(self) -> HeadNetwork:
        """Learn; the network in evaluation mode."""
        plan, seen = self._plan, []
        every = max(1, plan.steps // (plan.searches + 1))
        for step in range(plan.steps):
            mistakes = None
            if step and step % every == 0:
                mistakes = self._search()
            rate = pace(step / plan.steps, (step + 1) / _WARM_STEPS, _LEAST_RATE)
            self._optimizer.param_groups[0]["lr"] = plan.learning_rate * rate
            seen.append(self._one_step())
            if mistakes is not None or step + 1 == plan.steps:
                missed, taken = np.mean(seen[-100:], axis=0)
                done, steps = self._before + step + 1, plan.networks * plan.steps
                self._report(Told(done, steps, float(missed), float(taken), mistakes))
        return self._network.eval()

    def _one_step(self) -> tuple[float, float]:
        moments, size = self._moments, self._plan.batch
        shares = [(moments.others, 0.28), (moments.streams, 0.22), (self._hard, 0.25)]
        wrong = [self._some(ends, round(size * share)) for ends, share in shares if len(ends)]
        right = self._some(moments.right, size - sum(map(len, wrong)) if wrong else size)
        right = right[: size // 3]
        self._network.train()
        seen = torch.cat((self._blended(right), moments.windows(_indexes(wrong))))
        logits = self._network(seen)
        good, bad = logits[: len(right)], logits[len(right) :]
        loss = nn.functional.softplus
        missed = loss(-good).mean() + _SOFT * (good.mean())
        taken = loss(bad).mean() if len(bad) else missed * 0.0
        share = len(right) / len(logits)
        self._optimizer.zero_grad()
        (share * missed + (1.0 - share) * taken).backward()
        self._optimizer.step()
        return float(missed.detach()), float(taken.detach())

    def _blended(self, right: Indexes) -> Tensor:
        """(N, windows, 96) that end there, many with a little of the background in them."""
        moments, count = self._moments, len(right)
        windows = moments.windows(right)
        if not len(moments.streams):
            return windows
        most = _BLEND * (self._chance.random(count) < self._plan.blended)
        shares = torch.from_numpy((self._chance.random(count) * most).astype(np.float32))
        behind = moments.windows(self._some(moments.streams, count))
        return torch.lerp(windows, behind, shares[:, None, None])

    def _some(self, ends: Indexes, count: int) -> Indexes:
        return ends[self._chance.integers(len(ends), size=count)]

    @torch.no_grad()
    def _search(self) -> float:
        """Find what it takes for the phrase; returns how many moments of an hour it takes."""
        self._network.eval()
        ends = np.concatenate((self._moments.others, self._moments.streams))
        logits = np.concatenate(
            [
                self._network(self._moments.windows(ends[at : at + _AT_ONCE])).numpy()
                for at in range(0, len(ends), _AT_ONCE)
            ]
        )
        count = min(max(_LEAST_WORST, int((logits > _HARD_LOGIT).sum())), _WORST, len(ends))
        self._hard = ends[np.argsort(-logits)[:count]]
        hours = len(ends) * STEP_S / 3600.0
        return float((logits > 0).sum()) / max(hours, 1e-9)
