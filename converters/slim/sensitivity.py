"""How much each unit's channels matter for the answer, measured by leaving them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from converters.norm_statistics import Batch, batch_statistics
from converters.purity import flat_outputs
from converters.slim.groups import Group
from converters.slim.narrow import narrow
from converters.slim.repair import compensate
from converters.slim.search import Curve, Damage, Unit

SHARES = (0.15, 0.3, 0.5, 0.7, 0.85)
BATCHES = 2
"""That a damage is measured on."""


class Damages:
    """Damage of narrowed networks: the squared error of the outputs over their variance.

    BatchNorm uses each batch's statistics, as if it had been recalibrated.

    Args:
        module: at full width with its channels sorted.
        groups: all groups.
        batches: unlabelled samples, the full resolution first; the first ones of it are used.
        moments: for least squares, where the narrowed network will be repaired by it.
    """

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[Group],
        batches: Sequence[Batch],
        moments: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._module, self._groups, self._moments = module, groups, moments
        size = batches[0][0].shape[1:]
        self._batches = [batch for batch in batches if batch[0].shape[1:] == size][:BATCHES]
        with torch.no_grad(), batch_statistics(module):
            self._wanted = [
                [output.clone() for output in flat_outputs(module(*batch))]
                for batch in self._batches
            ]

    @torch.no_grad()
    def __call__(self, kept: Mapping[str, int]) -> float:
        """Of the network with these counts."""
        small = narrow(self._module, self._groups, kept)
        if self._moments:
            compensate(self._module, small, self._groups, kept, self._moments)
        with batch_statistics(small):
            found = [
                _distance(flat_outputs(small(*batch)), wanted)
                for batch, wanted in zip(self._batches, self._wanted, strict=True)
            ]
        return sum(found) / len(found)


def curves(
    units: Sequence[Unit],
    damage: Damage,
    *,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Curve]:
    """Damage by share for each unit, narrowed alone.

    Args:
        units: what is narrowed together.
        damage: of a narrowed network.
        progress: told each unit.
    """
    found = {}
    for unit in units:
        progress(f"sensitivity of {unit.name}")
        levels = {
            min(range(len(unit.levels)), key=lambda i: abs(unit.levels[i] - share))
            for share in SHARES
        } - {0}
        points = {1.0: 0.0}
        for level in sorted(levels):
            points[unit.levels[level]] = damage(unit.counts(level))
        found[unit.name] = _monotone(points)
    return found


def _distance(got: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    return sum(
        float((one - other).square().mean() / other.var(correction=0).clamp_min(1e-12))
        for one, other in zip(got, wanted, strict=True)
    )


def _monotone(points: dict[float, float]) -> Curve:
    """Noise must not make dropping more look better than dropping less."""
    shares = sorted(points, reverse=True)
    damages: list[float] = []
    for share in shares:
        damages.append(max([points[share], *damages[-1:]]))
    return Curve(tuple(reversed(shares)), tuple(reversed(damages)))
