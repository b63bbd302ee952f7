"""Learning one phrase: the head from nothing, the trunk a little, and again what it took wrongly.

A phrase is right when some step shortly after its end says so; everything else must stay quiet at
every step, the loudest ones weighing most. Every few hundred steps the network hears hours without
the phrase, and what it would have taken for it is learned as another mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from converters.wakeword.augment import disguised
from converters.wakeword.ears import Halves
from converters.wakeword.feature_store import FeatureStore, padded
from converters.wakeword.network import STEP_S, STRIDE, WakeNetwork
from converters.wakeword.pace import pace
from edge_sdk.audio.samples import Floats

_EARLY_STEPS: Final = 3
"""A report may come so much before the phrase's last sample: its end fades away."""
_LATE_STEPS: Final = 10
_FORGIVEN_STEPS: Final = 25
"""After the end what the network says is neither right nor wrong."""
_BEGUN: Final = 0.6
"""Share of the phrase after which a score is not wrong any more."""
_SMOOTH: Final = 3
_LOUDEST: Final = 3
_CHUNK_STEPS: Final = 3000
_CROP_FRAMES: Final = 300
_PEAK_STEPS: Final = 50
_WARM_STEPS: Final = 50


@dataclass
class Lessons:
    """Features to learn from."""

    phrases: FeatureStore = field(default_factory=FeatureStore)
    ends: list[tuple[int, int]] = field(default_factory=list)
    """First and last step of each phrase."""
    others: dict[str, FeatureStore] = field(default_factory=dict)
    """Everything that is not the phrase, by kind."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of a batch, by kind; the rest are phrases."""
    streams: list[Halves] = field(default_factory=list)
    """Hours (T, bands) without the phrase, to find mistakes in."""


@dataclass(frozen=True, slots=True)
class Told:
    """How learning goes."""

    step: int
    steps: int
    missed: float
    """Loss of phrases."""
    taken: float
    """Loss of everything else."""
    mistakes_per_hour: float | None = None
    """Found in the streams, when they were searched now."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to learn, and how."""

    steps: int = 800
    batch: int = 64
    learning_rate: float = 2e-3
    trunk_rate: float = 0.2
    """Of the head's learning rate."""
    search_every: int = 250
    seed: int = 0


def learn(
    network: WakeNetwork,
    lessons: Lessons,
    plan: Plan,
    report: Callable[[Told], None] = lambda told: None,
) -> WakeNetwork:
    """Train in place; returns the network in evaluation mode."""
    torch.manual_seed(plan.seed)
    chance = np.random.default_rng(plan.seed)
    optimizer = torch.optim.AdamW(
        [
            {"params": network.head.parameters(), "share": 1.0},
            {"params": network.trunk.parameters(), "share": plan.trunk_rate},
        ],
        plan.learning_rate,
        weight_decay=1e-2,
    )
    hard = lessons.others.setdefault("mistakes", FeatureStore())
    seen: list[tuple[float, float]] = []
    for step in range(plan.steps):
        mistakes = None
        if step and step % plan.search_every == 0 and lessons.streams:
            mistakes = find_mistakes(network, lessons.streams, hard, chance)
        rate = plan.learning_rate * pace(step / plan.steps, (step + 1) / _WARM_STEPS)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        network.train()
        seen.append(_one_step(network, optimizer, lessons, plan.batch, chance))
        if mistakes is not None or (step + 1) % 100 == 0:
            missed, taken = np.mean(seen[-100:], axis=0)
            report(Told(step + 1, plan.steps, float(missed), float(taken), mistakes))
    return network.eval()


def _one_step(
    network: WakeNetwork,
    optimizer: torch.optim.Optimizer,
    lessons: Lessons,
    size: int,
    chance: np.random.Generator,
) -> tuple[float, float]:
    x, lengths, spans = _batch(lessons, size, chance)
    missed, taken = losses(network.logits(disguised(x, chance)), lengths, spans)
    optimizer.zero_grad()
    (missed + taken).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 2.0)
    optimizer.step()
    return float(missed.detach()), float(taken.detach())


def _batch(
    lessons: Lessons, size: int, chance: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, bands, T), steps (N,) and, for phrases, first and last step (P, 2)."""
    kinds = {kind: store for kind, store in lessons.others.items() if len(store)}
    counts = {kind: round(size * lessons.shares.get(kind, 0.15)) for kind in kinds}
    phrases = max(4, size - sum(counts.values()))
    chosen = chance.integers(len(lessons.phrases), size=phrases).tolist()
    rows = [lessons.phrases.row(index) for index in chosen]
    for kind, store in kinds.items():
        picks = chance.integers(len(store), size=counts[kind]).tolist()
        rows += [_cropped(store.row(index), chance) for index in picks]
    return (
        padded(rows),
        torch.tensor([len(row) // STRIDE for row in rows]),
        torch.tensor([lessons.ends[index] for index in chosen]),
    )


def _cropped(row: Halves, chance: np.random.Generator) -> Halves:
    if len(row) <= _CROP_FRAMES:
        return row
    first = int(chance.integers(0, len(row) - _CROP_FRAMES))
    return row[first : first + _CROP_FRAMES]


def losses(logits: Tensor, lengths: Tensor, spans: Tensor) -> tuple[Tensor, Tensor]:
    """Of missing phrases, and of taking something else for one.

    Args:
        logits: (N, T); the first P rows hold a phrase.
        lengths: steps (N,) that are no padding.
        spans: first and last step of the phrases (P, 2).
    """
    steps = torch.arange(logits.shape[1])[None]
    real = steps < lengths[:, None]
    count = len(spans)
    begun = spans[:, :1] + _BEGUN * (spans[:, 1:] - spans[:, :1])
    right = (steps >= spans[:, 1:] - _EARLY_STEPS) & (steps <= spans[:, 1:] + _LATE_STEPS)
    open_ = (steps >= begun) & (steps <= spans[:, 1:] + _FORGIVEN_STEPS)
    padded = nn.functional.pad(logits[:, None], (_SMOOTH - 1, 0), mode="replicate")
    smooth = nn.functional.avg_pool1d(padded, _SMOOTH, 1)[:, 0]
    best = smooth[:count].masked_fill(~(right & real[:count]), -1e4).max(1).values
    missed = nn.functional.softplus(-best).mean()
    wrong = real.clone()
    wrong[:count] &= ~open_
    every = (nn.functional.softplus(logits) * wrong).sum() / wrong.sum()
    loudest = logits.masked_fill(~wrong, -1e4).topk(_LOUDEST, 1).values
    return missed, every + nn.functional.softplus(loudest).mean()


@torch.no_grad()
def score_stream(network: WakeNetwork, stream: Halves | Floats) -> Floats:
    """Scores (T,) float32, 0 to 1, of features (2 T, bands): one stream from its beginning."""
    network.eval()
    steps = len(stream) // STRIDE
    states = network.states(1)
    found = np.zeros(steps, np.float32)
    for first in range(0, steps, _CHUNK_STEPS):
        last = min(first + _CHUNK_STEPS, steps)
        piece = np.asarray(stream[first * STRIDE : last * STRIDE], np.float32).T
        logits, *states = network(torch.from_numpy(piece.copy())[None], *states)
        found[first:last] = torch.sigmoid(logits[0, 0]).numpy()
    return found


def find_mistakes(
    network: WakeNetwork,
    streams: Sequence[Halves],
    hard: FeatureStore,
    chance: np.random.Generator,
    most: int = 1500,
    least: float = 0.05,
) -> float:
    """Add what leads up to the highest scores; returns how many per hour exceed one half."""
    found: list[tuple[float, int, int]] = []
    above, steps = 0, 0
    for number, stream in enumerate(streams):
        scores = score_stream(network, stream)
        steps += len(scores)
        for score, place in _peaks(scores):
            above += score > 0.5
            if score > least:
                found.append((score, number, place))
    for _, number, place in sorted(found, reverse=True)[:most]:
        last = STRIDE * (place + int(chance.integers(5, 40)))
        first = max(0, last - _CROP_FRAMES + int(chance.integers(0, 60)))
        hard.add_features(streams[number][first - first % STRIDE : last])
    return above / max(steps * STEP_S / 3600.0, 1e-9)


def _peaks(scores: Floats) -> list[tuple[float, int]]:
    """The highest step of each second."""
    found = []
    for first in range(0, len(scores), _PEAK_STEPS):
        place = first + int(np.argmax(scores[first : first + _PEAK_STEPS]))
        found.append((float(scores[place]), place))
    return found
