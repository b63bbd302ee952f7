"""The accuracy gate: quantization may cost this much and no more."""

from __future__ import annotations

from collections.abc import Sequence

from converters.results import Measured, Sensitivity
from converters.schemes import parse_scheme
from edge_sdk.errors import GateError

DEFAULT_MAX_DROP = 0.01
MAX_OUTPUTS = 4
"""Named in a message, the worst first."""
STEPS = ("fp32", "fp16", "int8")
"""Precisions in the order they are gated: a step that fails is the one to look at, whatever the
steps after it lose on top."""


def check_gate(
    measured: Sequence[Measured],
    *,
    sensitivities: Sequence[Sensitivity] = (),
    max_drop: float = DEFAULT_MAX_DROP,
    min_accuracy: float = 0.0,
    reference_accuracy: float = 1.0,
    reference: str = "PyTorch",
) -> None:
    """Refuse a conversion whose artifacts lost too much.

    The loss counts against the reference (PyTorch, or the file that was imported, by its name) at
    the artifact's own resolution: a lower resolution is a choice, a quantization loss is a defect.

    Raises:
        GateError: ``gate.accuracy-drop`` or ``gate.accuracy-low``.
    """
    if reference_accuracy < min_accuracy:
        raise GateError(
            "accuracy-low",
            f"The model scores {reference_accuracy:.4f} on its evaluation set; "
            f"--min-accuracy asks for {min_accuracy:.4f}.",
            "Train longer, or give weights that fit this task.",
        )
    train = "train for it (edge model qat), " if reference == "PyTorch" else ""
    for step in STEPS:
        worst = max(
            (item for item in measured if step_of(item.scheme) == step),
            key=lambda item: item.scheme_drop,
            default=None,
        )
        if worst is not None and round(worst.scheme_drop, 9) > max_drop:
            raise GateError(
                "accuracy-drop",
                f"{worst.path.name} scores {worst.accuracy:.4f}, {worst.scheme_drop * 100:.2f} "
                f"points below {reference} at {worst.size}; the gate allows {max_drop * 100:.2f}. "
                f"The step to {step} fails{_layers(worst, sensitivities)}.{_outputs(worst)}",
                "Calibrate with samples like those the device sees (--calibration), leave the "
                f"scheme out (--schemes), {train}or accept more with --max-drop.",
            )


def step_of(scheme: str) -> str:
    """Which step of the way from float32 to int8 a scheme belongs to."""
    kind = parse_scheme(scheme)
    if kind.integer_weights:
        return "int8"
    return "fp32" if kind.weight_bits == 32 else "fp16"


def _outputs(item: Measured) -> str:
    """The noise of each output, where there are several to tell apart."""
    if len(item.output_sqnr_db) < 2:
        return ""
    worst_first = sorted(item.output_sqnr_db.items(), key=lambda pair: pair[1])
    shown = [f"{name} {noise:.1f} dB" for name, noise in worst_first[:MAX_OUTPUTS]]
    return f" Signal to noise by output: {', '.join(shown)}."


def _layers(item: Measured, sensitivities: Sequence[Sensitivity]) -> str:
    """The layers that hurt most, where they were scored."""
    for found in sensitivities:
        if (found.format, found.size, found.scheme) == (item.format, item.size, item.scheme):
            shown = [f"{score.name} ({score.sqnr_db:.1f} dB)" for score in found.layers[:3]]
            return f"; the worst layers alone: {', '.join(shown)}" if shown else ""
    return ""
