"""How ``edge model convert`` is told to calibrate, repair and mix, and what it shows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_sdk.cli.output import Output

if TYPE_CHECKING:
    from converters.convert import Outcome

F = TypeVar("F", bound=Callable[..., Any])
METHODS = ("min-max", "percentile", "entropy", "mse")
GRANULARITIES = ("channel", "tensor")


def quantize_options(command: F) -> F:
    """``--calibration``, ``--granularity``, ``--repair`` and ``--mixed``."""
    for option in (
        click.option(
            "--mixed",
            type=click.Choice(["auto", "off"]),
            default="auto",
            show_default=True,
            help="Keep the worst layers in float32 where int8 would miss the gate.",
        ),
        click.option(
            "--repair",
            type=click.Choice(["auto", "always", "off"]),
            default="auto",
            show_default=True,
            help="Equalize channels and correct biases where int8 would miss the gate, or always; "
            "kept only where it measurably helps.",
        ),
        click.option(
            "--granularity",
            type=click.Choice(GRANULARITIES),
            default="channel",
            show_default=True,
            help="One weight scale per output channel, or one per tensor.",
        ),
        click.option(
            "--calibration",
            type=click.Choice(METHODS),
            default="min-max",
            show_default=True,
            help="How ranges of activations are chosen.",
        ),
    ):
        command = option(command)
    return command


def quantize_choices(options: dict[str, Any]) -> dict[str, Any]:
    """These options as arguments of :class:`converters.convert.Options`."""
    from converters.settings import Settings

    return {
        "settings": Settings(
            calibration=options["calibration"], granularity=options["granularity"]
        ),
        "repair": options["repair"],
        "mixed": options["mixed"] == "auto",
    }


def show_rescue(out: Output, outcome: Outcome) -> None:
    """What was repaired and mixed, and what the user should know."""
    if outcome.repairs:
        rows = [
            (
                f"{item.size} {item.scheme} {item.format}",
                item.kind,
                f"{item.before_db:.1f} -> {item.after_db:.1f}",
                f"{item.before_accuracy * 100:.2f} -> {item.after_accuracy * 100:.2f}",
                "kept" if item.applied else "refused",
            )
            for item in outcome.repairs
        ]
        out.table("Repairs", ("artifact", "repair", "SQNR dB", "accuracy %", ""), rows)
    for found in outcome.sensitivities:
        if found.kept:
            out.line(
                f"{found.size} {found.scheme} {found.format}: kept in float32: "
                f"{', '.join(found.kept)}",
                "yellow",
            )
    if outcome.friendly:
        grids = [
            (
                f"{item.size} {item.scheme} {item.format}",
                f"{item.before_bytes / 1024:.1f} -> {item.after_bytes / 1024:.1f}",
                f"{item.before_accuracy * 100:.2f} -> {item.after_accuracy * 100:.2f}",
                "kept" if item.applied else "refused",
            )
            for item in outcome.friendly
        ]
        out.table("The earlier int8 grid", ("artifact", "delta KiB", "accuracy %", ""), grids)
    for text in outcome.warnings:
        out.line(text, "yellow")


def rescue_data(outcome: Outcome) -> dict[str, Any]:
    """The same for ``--json``."""
    from dataclasses import asdict

    return {
        "repairs": [asdict(item) for item in outcome.repairs],
        "sensitivities": [asdict(item) for item in outcome.sensitivities],
        "friendly": [asdict(item) for item in outcome.friendly],
        "warnings": list(outcome.warnings),
    }
