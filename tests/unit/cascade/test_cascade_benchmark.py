"""The benchmark of the gate judges choosers by the same rule, ours and the controls."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cascade import SPLITS, Held, auc, hardness, judge
from benchmarks.cascade_network import build, enlarged


def held(seed: int = 0) -> Held:
    """A first point that guesses, unsurely, on three in ten frames."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, 600)
    full, first = (random.normal(0, 1, (600, 5)).astype(np.float32) for _ in range(2))
    full[np.arange(600), labels] += 10
    easy = random.random(600) > 0.3
    first[np.flatnonzero(easy), labels[easy]] += 8
    return Held(first, full, labels, {"noise": random.random(600)})


def test_the_margin_beats_chance_with_the_same_share() -> None:
    rows, refusals = judge(held(), (1.0, 5.0), 0.02)
    ours, random, noise = rows
    assert refusals == 0 and [row.chosen_by for row in rows] == ["margin (ours)", "random", "noise"]
    assert ours.escalated == pytest.approx(random.escalated, abs=0.03)
    assert ours.escalated == pytest.approx(noise.escalated, abs=0.06)
    assert ours.disagreement < 0.03 < random.disagreement and ours.loss < noise.loss
    assert ours.auc > 0.9 and abs(noise.auc - 0.5) < 0.1
    assert ours.saving == pytest.approx(1 - (1 + 5 * ours.escalated) / 5, abs=0.01)


def test_a_refused_calibration_counts_as_nothing_saved() -> None:
    one = held()
    rolled = Held(np.roll(one.first, 1, axis=1), one.full, one.labels, {})
    rows, refusals = judge(rolled, (1.0, 5.0), 0.0)
    assert refusals == SPLITS and (rows[0].saving, rows[0].loss, rows[0].escalated) == (0, 0, 1)


def test_the_area_is_that_of_all_pairs() -> None:
    random = np.random.default_rng(1)
    score, positive = random.integers(0, 6, 80).astype(float), random.random(80) < 0.4
    pairs = score[positive][:, None] - score[~positive][None]
    assert auc(score, positive) == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def test_a_busy_picture_counts_as_harder_than_a_flat_one() -> None:
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[1] = np.random.default_rng(0).integers(0, 255, (32, 32, 3))
    assert all(values[1] > values[0] for values in hardness(images).values())


def test_resolutions_share_kernels_and_nothing_else() -> None:
    networks = build((32, 16), 8, None)
    full, low = (dict(network.named_parameters()) for network in networks.values())
    shared = {name for name, value in full.items() if value is low[name]}
    assert shared == {name for name, value in full.items() if value.ndim == 4}
    assert list(enlarged(networks, 64)) == [64, 16]
