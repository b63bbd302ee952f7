"""The space of sub-networks and the search, as pure functions."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from converters.supernet.search import Effort, fitted, search
from converters.supernet.space import KINDS, Axis, Genes, Space

STAGES = st.lists(st.integers(1, 3), min_size=1, max_size=2)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Stages of blocks; each block has a kernel and a width, some widths belong to none."""
    axes = [Axis("resolution", "", tuple(range(draw(st.integers(1, 2)))))]
    for number, blocks in enumerate(draw(STAGES)):
        stage = f"s{number}"
        axes.append(Axis("depth", stage, tuple(range(blocks, 0, -1))))
        for block in range(blocks):
            axes.append(Axis("kernel", f"{stage}.{block}.k", (5, 3), (stage, block)))
            axes.append(Axis("width", f"{stage}.{block}.w", (1.0, 0.5), (stage, block)))
    axes.append(Axis("width", "stem", (1.0, 0.75, 0.5)))
    return Space(draw(st.permutations(axes)))


def price(space: Space, genes: Genes) -> float:
    """Every living block costs something, less when it is smaller; the stem always does."""
    depths = space.chosen(genes, "depth")
    total = 0.0
    for axis, gene in zip(space.axes, genes, strict=True):
        if axis.block is None or axis.block[1] < depths[axis.block[0]]:
            total += 1.0 / (1 + gene) if axis.kind != "depth" else 0.0
    return total + sum(depths.values())


def worth(genes: Genes) -> tuple[float, float]:
    """Any fixed opinion that has nothing to do with the price."""
    return random.Random(str(genes)).random(), 0.0


@settings(deadline=None)
@given(spaces(), st.integers(0, 1000))
def test_points_stay_canonical_whatever_happens_to_them(space: Space, seed: int) -> None:
    draw = random.Random(seed)
    one, other = space.drawn(draw, KINDS), space.drawn(draw, KINDS)
    for genes in (
        one,
        space.mutated(one, draw, 0.5),
        space.crossed(one, other, draw),
        space.smallest(KINDS),
        *space.smaller(one),
        *space.larger(one),
    ):
        assert space.canonical(genes) == genes
        depths = space.chosen(genes, "depth")
        for axis, gene in zip(space.axes, genes, strict=True):
            assert 0 <= gene < len(axis.options)
            if axis.block is not None and axis.block[1] >= depths[axis.block[0]]:
                assert gene == 0


@settings(deadline=None)
@given(spaces())
def test_only_the_kinds_of_a_phase_vary(space: Space) -> None:
    genes = space.smallest({"kernel"})
    for axis, gene in zip(space.axes, genes, strict=True):
        assert (gene > 0) == (axis.kind == "kernel")


@settings(deadline=None)
@given(spaces(), st.integers(0, 1000), st.floats(0.0, 1.0))
def test_a_fitted_point_fits_and_leaves_no_room(space: Space, seed: int, share: float) -> None:
    draw = random.Random(seed)
    low, high = price(space, space.smallest(KINDS)), price(space, space.full)
    budget = low + share * (high - low)
    genes = fitted(space, lambda g: price(space, g), space.drawn(draw, KINDS), budget, draw)
    assert price(space, genes) <= budget
    for step in space.larger(genes):
        assert price(space, step) > budget or price(space, step) <= price(space, genes)


@settings(deadline=None)
@given(spaces(), st.integers(0, 100), st.floats(-0.1, 1.0), st.integers(1, 60))
def test_the_search_keeps_the_budget_and_its_effort(
    space: Space, seed: int, share: float, candidates: int
) -> None:
    low, high = price(space, space.smallest(KINDS)), price(space, space.full)
    budget = low + share * (high - low)
    asked: list[Genes] = []

    def quality(genes: Genes) -> tuple[float, float]:
        asked.append(genes)
        return worth(genes)

    effort = Effort(candidates=candidates, population=8, seed=seed)
    seeds = [space.full, space.uniform(0.5)]
    found = search(space, lambda g: price(space, g), quality, budget, effort, seeds)
    assert len(set(asked)) == len(asked) <= candidates
    assert all(price(space, genes) <= budget for genes in asked)
    if found is None:
        assert budget < low
        return
    assert found.genes in asked
    assert found.measured == len(asked)
    assert found.quality == max(map(worth, asked))
    if candidates >= 2:
        fitting = [worth(s) for s in seeds if price(space, s) <= budget]
        assert all(found.quality >= quality for quality in fitting)
    again = search(space, lambda g: price(space, g), worth, budget, effort, seeds)
    assert again == found


def test_a_small_space_is_searched_whole() -> None:
    space = Space([Axis("width", "a", (1.0, 0.5)), Axis("width", "b", (1.0, 0.75, 0.5))])
    every = list(space.everything())
    assert len(every) == space.size == 6
    found = search(space, lambda genes: 6.0 - sum(genes), worth, 5.0, Effort(candidates=6))
    assert found is not None
    assert found.exhaustive
    assert found.measured == 5
    assert found.quality == max(worth(genes) for genes in every if sum(genes) >= 1)
