"""The search: nested, within its budget, never worse by noise; and the union-find under it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.slim.atoms import FIXED, Atoms
from converters.slim.groups import Entry, Group
from converters.slim.search import TRIES, Curve, Unit, search, uniform, units_of
from converters.slim.settings import Settings, round_to_of


def group(name: str, size: int, block: int = 1, link: str = "") -> Group:
    positions = tuple(tuple(range(i * block, (i + 1) * block)) for i in range(size))
    return Group(name, (Entry(f"{name}.weight", 0, False, positions),), link=link)


sizes = st.lists(st.integers(2, 70), min_size=1, max_size=6)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Unit], dict[str, Curve], dict[str, float]]:
    groups = [
        group(f"g{i}", size, link=draw(st.sampled_from(("", "", "a"))))
        for i, size in enumerate(draw(sizes))
    ]
    units = units_of(groups, draw(st.sampled_from((1, 4, 8))))
    curves, prices = {}, {}
    for unit in units:
        low, high = sorted(draw(st.tuples(st.floats(0, 5), st.floats(0, 5))))
        curves[unit.name] = Curve((0.3, 0.6, 1.0), (high, low, 0.0))
    for one in groups:
        prices[one.name] = draw(st.floats(0.1, 9))
    return units, curves, prices


@given(problems(), st.lists(st.floats(0.05, 0.95), min_size=1, max_size=4), st.floats(0, 1))
def test_widths_are_nested_and_within_their_budgets(
    problem: tuple[list[Unit], dict[str, Curve], dict[str, float]],
    shares: list[float],
    floor: float,
) -> None:
    units, curves, prices = problem
    full = {n: c for unit in units for n, c in unit.counts(0).items()}
    least = {n: c for unit in units for n, c in unit.counts(len(unit.levels) - 1).items()}

    def cost(kept: dict[str, int]) -> float:
        return math.fsum(prices[name] * count for name, count in kept.items())

    budgets = [share * cost(full) for share in sorted(shares, reverse=True)]
    floors = [floor * share for share in sorted(shares, reverse=True)]
    found = search(units, curves, cost, budgets, floors=floors)  # type: ignore[arg-type]
    before = full
    for kept, budget in zip(found, budgets, strict=True):
        assert all(least[name] <= kept[name] <= before[name] for name in full)
        assert cost(kept) <= budget or kept == least
        for unit in units:  # what is linked keeps one share
            shares_kept = {kept[one.name] / one.size for one in unit.groups}
            assert max(shares_kept) - min(shares_kept) < 1e-9
        before = kept


@given(problems(), st.lists(st.floats(0.05, 0.95), min_size=1, max_size=3), st.integers(0, 99))
def test_exchange_never_harms_and_stays_nested_within_the_budget(
    problem: tuple[list[Unit], dict[str, Curve], dict[str, float]], shares: list[float], seed: int
) -> None:
    units, curves, prices = problem
    full = {n: c for unit in units for n, c in unit.counts(0).items()}
    measured: list[tuple[int, ...]] = []

    def cost(kept: Mapping[str, int]) -> float:
        return math.fsum(prices[name] * count for name, count in kept.items())

    def damage(kept: Mapping[str, int]) -> float:
        """Of no relation to the curves, so trades that they praise are often bad ones."""
        measured.append(tuple(kept.values()))
        return random.Random(f"{seed}{sorted(kept.items())}").random()

    budgets = [share * cost(full) for share in sorted(shares, reverse=True)]
    first = search(units, curves, cost, budgets[:1])[0]
    found = search(units, curves, cost, budgets, damage)
    assert len(measured) <= (TRIES + 1) * len(budgets)
    assert damage(found[0]) <= damage(first)
    before = full
    for kept, budget in zip(found, budgets, strict=True):
        least = {n: c for unit in units for n, c in unit.counts(len(unit.levels) - 1).items()}
        assert all(kept[name] <= before[name] for name in full)
        assert cost(kept) <= budget or kept == least
        before = kept


def test_exchange_finds_what_single_damages_hide() -> None:
    """Either layer alone can be spared, both together cannot: the sum of the curves is wrong."""
    units = units_of([group("a", 32), group("b", 32), group("c", 32)], 16)
    curves = {
        "a": Curve((0.5, 1.0), (0.1, 0.0)),
        "b": Curve((0.5, 1.0), (0.1, 0.0)),
        "c": Curve((0.5, 1.0), (0.3, 0.0)),
    }

    def damage(kept: Mapping[str, int]) -> float:
        both = kept["a"] == kept["b"] == 16
        return 5.0 if both else 0.1 + 0.2 * (kept["c"] == 16)

    def cost(kept: Mapping[str, int]) -> float:
        return float(sum(kept.values()))

    (alone,) = search(units, curves, cost, [64.0])
    assert alone == {"a": 16, "b": 16, "c": 32}
    (whole,) = search(units, curves, cost, [64.0], damage)
    assert whole["c"] == 16
    assert sorted((whole["a"], whole["b"])) == [16, 32]


def test_a_floor_holds_where_the_budget_can_be_met_above_it() -> None:
    units = units_of([group("needed", 32), group("idle", 32)], 8)
    curves = {
        "needed": Curve((0.25, 1.0), (1.0, 0.0)),
        "idle": Curve((0.25, 1.0), (0.001, 0.0)),
    }

    def cost(kept: Mapping[str, int]) -> float:
        return float(sum(kept.values()))

    (free,) = search(units, curves, cost, [40.0])
    assert free == {"needed": 32, "idle": 8}
    (held,) = search(units, curves, cost, [40.0], floors=[0.5])
    assert held == {"needed": 24, "idle": 16}
    (forced,) = search(units, curves, cost, [24.0], floors=[0.5])
    assert forced == {"needed": 16, "idle": 8}


@given(problems(), st.floats(0.05, 1))
def test_a_uniform_network_has_only_counts_that_exist(
    problem: tuple[list[Unit], dict[str, Curve], dict[str, float]], share: float
) -> None:
    units, _, _ = problem
    kept = uniform(units, share)
    for unit in units:
        levels = [unit.counts(level) for level in range(len(unit.levels))]
        assert {one.name: kept[one.name] for one in unit.groups} in levels


def test_the_harmless_group_goes_first() -> None:
    units = units_of([group("needed", 32), group("idle", 32)], 8)
    curves = {
        "needed": Curve((0.5, 1.0), (1.0, 0.0)),
        "idle": Curve((0.5, 1.0), (0.001, 0.0)),
    }
    (kept,) = search(units, curves, lambda kept: float(sum(kept.values())), [50.0])
    assert kept == {"needed": 32, "idle": 16}


def test_counts_are_multiples_that_kernels_like() -> None:
    (unit,) = units_of([group("g", 60)], 8)
    assert [unit.counts(i)["g"] for i in range(3)] == [60, 56, 48]
    (heads,) = units_of([group("heads", 6, block=24)], 8)
    assert [heads.counts(i)["heads"] for i in range(len(heads.levels))] == [6, 5, 4, 3, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30))
def test_atoms_partition_like_a_plain_closure(pairs: list[tuple[int, int]]) -> None:
    """What meets the fixed atom is held with all that is one with it, whatever the order."""
    atoms = Atoms()
    atoms.fresh(20)
    parts = [{number} for number in range(21)]
    for a, b in pairs:
        atoms.unite(torch.tensor([a]), torch.tensor([b]), "add")
        if a != b:
            joined = next(p for p in parts if a in p) | next(p for p in parts if b in p)
            parts = [p for p in parts if not p & joined] + [joined]
    held = next(part for part in parts if FIXED in part)
    for a in range(1, 21):
        assert bool(atoms.reason(atoms.root(a))) == (a in held)
        for b in range(1, 21):
            if a not in held:
                together = any(a in part and b in part for part in parts)
                assert (atoms.root(a) == atoms.root(b)) == together


def test_wide_vectors_want_wide_blocks() -> None:
    assert round_to_of(Settings(), ("neon", "dotprod")) == 8
    assert round_to_of(Settings(), ("avx512f",)) == 16
    assert round_to_of(Settings(round_to=4), ("avx512f",)) == 4
