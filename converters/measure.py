"""Comparing an artifact's answers with PyTorch's: pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.task import Floats

_EXACT_SHARE = {"fp32": 2e-3, "wfp16": 3e-2}
"""Output error, as a share of the largest reference output, beyond which a float artifact did not
convert inexactly but wrongly."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far an artifact is from PyTorch at its own resolution."""

    agreement: float
    """Share of samples with the same largest output."""
    max_output_error: float
    """Largest absolute difference of any output element."""
    distance: float
    """Mean absolute difference from PyTorch's answer at the *full* resolution: what running this
    artifact instead of the full model does to the outputs."""


def compare(outputs: Floats, reference: Floats, full_reference: Floats) -> Comparison:
    """Compare answers of shape (N, classes) to the same samples."""
    same = np.argmax(outputs, axis=1) == np.argmax(reference, axis=1)
    return Comparison(
        agreement=float(np.mean(same)),
        max_output_error=float(np.abs(outputs - reference).max()),
        distance=float(np.abs(outputs - full_reference).mean()),
    )


def is_wrong(scheme: str, comparison: Comparison, reference: Floats) -> bool:
    """Whether a float artifact differs more than rounding explains.

    Exporters have silent failures (constants read in the wrong order); only running both sides
    finds them. Integer schemes are judged by the accuracy gate instead.
    """
    share = _EXACT_SHARE.get(scheme)
    largest = max(1.0, float(np.abs(reference).max(initial=0.0)))
    return share is not None and comparison.max_output_error > share * largest
