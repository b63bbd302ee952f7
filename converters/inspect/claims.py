"""Holding a file to what its name says: an int8 file that is not int8 is an error."""

from __future__ import annotations

from pathlib import Path

from converters.inspect.model import Layer, ModelFacts
from converters.schemes import Scheme
from edge_sdk.errors import ConversionError


def problems_with(facts: ModelFacts, scheme: Scheme) -> list[str]:
    """Everything in a file that contradicts a scheme; empty when the name is true."""
    found = []
    for layer in facts.layers:
        if layer.weight_dtype not in scheme.weight_dtypes:
            found.append(f"{_of(layer)} has {layer.weight_dtype} weights")
        if scheme.integer_activations and layer.activation_dtype != scheme.io_dtype:
            found.append(f"{_of(layer)} works on {layer.activation_dtype} activations")
    for kind, specs in (("input", facts.inputs), ("output", facts.outputs)):
        for spec in specs:
            if spec.dtype != scheme.io_dtype:
                found.append(f"{kind} {spec.name!r} is {spec.dtype}")
            elif scheme.integer_activations and spec.scale is None:
                found.append(f"{kind} {spec.name!r} has no scale")
    if scheme.integer_weights and not facts.layers:
        found.append("it has no layer with weights")
    return found


def check_claim(facts: ModelFacts, scheme: Scheme, path: Path) -> None:
    """Refuse a file that is not what its scheme claims.

    Raises:
        ConversionError: ``conversion.false-claim`` listing the first contradictions.
    """
    problems = problems_with(facts, scheme)
    if problems:
        shown = "; ".join(problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConversionError(
            "false-claim",
            f"{path.name} claims {scheme} but {shown}{more}.",
            "A layer the quantizer cannot handle stays float; replace it, or leave this scheme "
            "out with --schemes.",
        )


def _of(layer: Layer) -> str:
    return f"{layer.op} {layer.name!r}"
