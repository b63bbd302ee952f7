"""The accuracy gate: quantization may cost this much and no more."""

from __future__ import annotations

from collections.abc import Sequence

from converters.results import Measured
from edge_sdk.errors import GateError

DEFAULT_MAX_DROP = 0.01


def check_gate(
    measured: Sequence[Measured],
    *,
    max_drop: float = DEFAULT_MAX_DROP,
    min_accuracy: float = 0.0,
    reference_accuracy: float = 1.0,
) -> None:
    """Refuse a conversion whose artifacts lost too much.

    The loss counts against PyTorch at the artifact's own resolution: a lower resolution is a
    choice, a quantization loss is a defect.

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
    worst = max(measured, key=lambda item: item.scheme_drop, default=None)
    if worst is not None and round(worst.scheme_drop, 9) > max_drop:
        raise GateError(
            "accuracy-drop",
            f"{worst.path.name} scores {worst.accuracy:.4f}, {worst.scheme_drop * 100:.2f} points "
            f"below PyTorch at {worst.size}; the gate allows {max_drop * 100:.2f}.",
            "Calibrate with samples like those the device sees, leave the scheme out "
            "(--schemes), or accept more with --max-drop.",
        )
