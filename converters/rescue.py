"""What happens to artifacts that miss the gate, before it closes: repair, then mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converters.children import Job
from converters.results import LayerScore, Measured, Repair, Sensitivity
from converters.schemes import parse_scheme
from converters.verify import Reference

When = Literal["auto", "always", "off"]
TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be tried, and when."""

    max_drop: float
    repair: When = "auto"
    """``auto``: for artifacts that miss the gate; ``always``: for every static one."""
    mixed: bool = True
    trained: bool = False
    """Weights and scales come from quantization-aware training; whatever could be tried starts
    from the float file, which was not trained so."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """The artifacts that count now, and what was learned."""

    measured: list[Measured]
    repairs: tuple[Repair, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()


def rescue(
    measured: Sequence[Measured],
    reference: Reference,
    policy: Policy,
    *,
    job: Callable[[Measured], Job],
    verify: Callable[[list[dict[str, Any]]], list[Measured]],
    run: Callable[[list[Job]], list[dict[str, Any]]],
    scratch: Path,
) -> Rescued:
    """Try to bring artifacts through the gate.

    Args:
        measured: all verified artifacts.
        reference: PyTorch's answers.
        policy: what may be tried.
        job: the build job of an artifact, which tells where everything lies.
        verify: measures what was built anew.
        run: runs jobs of :mod:`converters.rescue_worker`, perhaps through a cache.
        scratch: for held-out samples.

    Returns:
        The artifacts in their order, those that were rescued in place of what they were. An
        artifact that still misses the gate stays, for the gate to refuse, with its layers scored.
    """
    chosen = [item for item in measured if _needs(item, policy)]
    if not chosen:
        return Rescued(list(measured))
    found = run([_job(item, job(item), reference, policy, scratch) for item in chosen])
    changed = {
        item.path: answer
        for item, answer in zip(chosen, found, strict=True)
        if answer["kept"] or any(repair["applied"] for repair in answer["repairs"])
    }
    again = verify([_built(item, changed[item.path]) for item in chosen if item.path in changed])
    replaced = dict(zip(changed, again, strict=True))
    for path, item in replaced.items():
        if item.path != path:
            path.unlink()
            path.parent.parent.joinpath("golden", f"{path.name}.npz").unlink()
    return Rescued(
        [replaced.get(item.path, item) for item in measured],
        tuple(Repair(**repair) for answer in found for repair in answer["repairs"]),
        tuple(
            Sensitivity(
                item.format,
                item.size,
                item.scheme,
                tuple(LayerScore(**score) for score in answer["scores"]),
                tuple(answer["kept"]),
            )
            for item, answer in zip(chosen, found, strict=True)
            if answer["scores"]
        ),
    )


def _needs(item: Measured, policy: Policy) -> bool:
    if item.scheme == "fp32" or policy.trained:
        return False
    missed = round(item.scheme_drop, 9) > policy.max_drop
    return missed or (policy.repair == "always" and _repairable(item))


def _repairable(item: Measured) -> bool:
    kind = parse_scheme(item.scheme)
    return kind.mode == "static" and not kind.mixed


def _job(item: Measured, build: Job, reference: Reference, policy: Policy, scratch: Path) -> Job:
    held_out = scratch / f"held-out-{item.size}.npz"
    if not held_out.exists():
        samples = reference.samples[item.size]
        np.savez(
            held_out,
            inputs=samples.inputs,
            labels=samples.labels,
            reference=reference.outputs[item.size],
            accuracy=np.float64(reference.accuracy[item.size]),
        )
    extra = {
        "size": item.size,
        "scheme": item.scheme,
        "path": str(item.path),
        "held_out": str(held_out),
        "max_drop": policy.max_drop,
        "repair": policy.repair != "off" and _repairable(item),
        "mixed": policy.mixed,
    }
    return replace(
        build,
        name=item.path.name,
        module="converters.rescue_worker",
        request={**build.request, **extra},
        timeout_s=TIMEOUT_S,
    )


def _built(item: Measured, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": answer["path"],
        "scheme": answer["scheme"],
        "format": item.format,
        "height": item.height_px,
        "width": item.width_px,
    }
