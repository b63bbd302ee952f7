"""A failed gate names the layers that lost the most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.gate import check_gate
from converters.layer_noise import LayerNoise, layer_noise
from converters.results import Measured, Sensitivity
from converters.task import Floats
from edge_sdk.errors import EdgeError, GateError

WORST = 3


def check_gate_and_blame(
    measured: Sequence[Measured],
    samples: dict[str, Floats],
    *,
    sensitivities: Sequence[Sensitivity] = (),
    max_drop: float,
    min_accuracy: float = 0.0,
    reference_accuracy: float = 1.0,
    reference: str = "PyTorch",
    exported: bool = True,
) -> None:
    """As :func:`converters.gate.check_gate`; an accuracy drop comes with the worst layers.

    Args:
        measured: verified artifacts.
        samples: packed samples by resolution.
        sensitivities: layers scored while a rescue was tried.
        max_drop: see :func:`~converters.gate.check_gate`.
        min_accuracy: likewise.
        reference_accuracy: likewise.
        reference: likewise.
        exported: whether our exporters made the files.

    Raises:
        GateError: ``gate.accuracy-drop`` or ``gate.accuracy-low``.
    """
    try:
        check_gate(
            measured,
            sensitivities=sensitivities,
            max_drop=max_drop,
            min_accuracy=min_accuracy,
            reference_accuracy=reference_accuracy,
            reference=reference,
        )
    except GateError as error:
        worst = max(measured, key=lambda item: item.scheme_drop)
        source = _float_of(worst, measured)
        if error.slug != "accuracy-drop" or source is None:
            raise
        named = _worst_layers(worst.path, source, samples[worst.size], exported)
        if not named:
            raise
        raise GateError("accuracy-drop", f"{error.cause} {named}", error.hint) from error


def _float_of(item: Measured, measured: Sequence[Measured]) -> Path | None:
    """The float file of the same format and resolution."""
    return next(
        (
            other.path
            for other in measured
            if (other.format, other.size, other.scheme) == (item.format, item.size, "fp32")
            and other is not item
        ),
        None,
    )


def _worst_layers(quantized: Path, source: Path, samples: Floats, exported: bool) -> str:
    try:
        layers = layer_noise(quantized, source, samples, exported=exported)
    except EdgeError:
        return ""  # the gate's own verdict matters more than its explanation
    return describe(layers)


def describe(layers: Sequence[LayerNoise]) -> str:
    """The worst layers as a sentence; empty when there are none."""
    if not layers:
        return ""
    shown = ", ".join(f"{layer.name} ({layer.sqnr_db:.1f} dB)" for layer in layers[:WORST])
    return f"Layers with the most noise: {shown}."
