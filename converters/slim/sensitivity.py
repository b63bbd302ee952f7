"""How much each unit's channels matter for the answer, measured by leaving them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from converters.purity import flat_outputs
from converters.slim.groups import Group
from converters.slim.narrow import narrow
from converters.slim.repair import compensate
from converters.slim.samples import Batch, batch_statistics
from converters.slim.search import Curve, Unit

SHARES = (0.15, 0.3, 0.5, 0.7, 0.85)


def curves(
    module: nn.Module,
    groups: Sequence[Group],
    units: Sequence[Unit],
    batch: Batch,
    *,
    moments: Mapping[str, torch.Tensor] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Curve]:
    """Damage by share for each unit, narrowed alone.

    Damage is the squared error of the outputs over their variance. BatchNorm uses the batch's
    statistics, as if it had been recalibrated.

    Args:
        module: at full width with its channels sorted.
        groups: all groups.
        units: what is narrowed together.
        batch: unlabelled samples.
        moments: for least squares, where the narrowed network will be repaired by it.
        progress: told each unit.
    """
    with torch.no_grad(), batch_statistics(module):
        wanted = [output.clone() for output in flat_outputs(module(*batch))]
    found = {}
    for unit in units:
        progress(f"sensitivity of {unit.name}")
        levels = {
            min(range(len(unit.levels)), key=lambda i: abs(unit.levels[i] - share))
            for share in SHARES
        } - {0}
        points = {1.0: 0.0}
        for level in sorted(levels):
            small = narrow(module, groups, unit.counts(level))
            if moments:
                compensate(module, small, groups, unit.counts(level), moments)
            points[unit.levels[level]] = _damage(small, batch, wanted)
        found[unit.name] = _monotone(points)
    return found


@torch.no_grad()
def _damage(small: nn.Module, batch: Batch, wanted: Sequence[torch.Tensor]) -> float:
    with batch_statistics(small):
        got = flat_outputs(small(*batch))
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
