"""What ``edge model`` says about folding and fusion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli.output import Output

if TYPE_CHECKING:
    from converters.convert import Outcome


def show_steps(out: Output, file: Path) -> None:
    """What is left to fold or fuse in a file."""
    from converters.fusion import steps_in

    steps = steps_in(file)
    out.line(
        f"  graph: {steps.operators} operators, {steps.weighted} with weights, "
        f"{steps.activations} activations of their own, {steps.norms} normalisations not folded, "
        f"{steps.foldable} constant, {steps.dead} unread"
    )


def show_fusion(out: Output, outcome: Outcome) -> None:
    """Steps of the module against operators of the fp32 files."""
    if outcome.fusion is None:
        return
    before = outcome.fusion.before
    for kind, after in outcome.fusion.after.items():
        out.line(
            f"{kind}: {before.operators} steps -> {after.operators} operators, normalisations "
            f"{before.norms} -> {after.norms}, separate activations "
            f"{before.activations} -> {after.activations}"
        )
