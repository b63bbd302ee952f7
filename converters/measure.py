"""Comparing an artifact's answers with PyTorch's: pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.loading import LoadedTask
from converters.task import Floats, Integers, score_of
from converters.usercode import user_code

MAX_SQNR_DB = 200.0
"""What equal answers count as; float32 itself ends near 140."""
_NOTHING = 1e-6
"""Error that is none, for outputs that are all zero."""

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


def compare_generic(
    outputs: Floats, reference: Floats, widths: Sequence[int], tolerance: float
) -> Comparison:
    """Compare packed answers (N, elements) of a task without labels.

    Agreement is the share of samples within the tolerance (see :func:`within`); the distance is
    taken at the same resolution, because outputs of another have other shapes.
    """
    return Comparison(
        agreement=float(np.mean(within(outputs, reference, widths, tolerance))),
        max_output_error=float(np.abs(outputs - reference).max(initial=0.0)),
        distance=float(np.abs(outputs - reference).mean()),
    )


def within(
    outputs: Floats, reference: Floats, widths: Sequence[int], tolerance: float
) -> npt.NDArray[np.bool_]:
    """Which samples count as right: each output's error is small next to that output.

    Args:
        outputs: packed answers, (N, ...) with ``sum(widths)`` elements per sample.
        reference: PyTorch's.
        widths: elements per sample of each output, in the order they are packed.
        tolerance: largest root mean square of a sample's error, as a share of the root mean
            square of that output over all samples.
    """
    right = np.ones(len(outputs), np.bool_)
    for got, wanted in _split(outputs, reference, widths):
        size = np.sqrt(np.mean(np.square(wanted), dtype=np.float64))
        error = np.sqrt(np.mean(np.square(got - wanted), axis=1, dtype=np.float64))
        right &= error <= tolerance * size + _NOTHING
    return right


def sqnr_db(outputs: Floats, reference: Floats, widths: Sequence[int] = ()) -> float:
    """Signal to quantization noise of the worst output, in dB, at most :data:`MAX_SQNR_DB`."""
    return min(sqnr_by_output(outputs, reference, widths))


def sqnr_by_output(
    outputs: Floats, reference: Floats, widths: Sequence[int] = ()
) -> tuple[float, ...]:
    """Signal to quantization noise of each output in dB, in the order they are packed."""
    found = []
    for got, wanted in _split(outputs, reference, widths):
        noise = float(np.sum(np.square(got - wanted), dtype=np.float64))
        signal = float(np.sum(np.square(wanted), dtype=np.float64))
        clean = 10 * math.log10(max(signal, 1e-30) / noise) if noise > 0 else MAX_SQNR_DB
        found.append(min(clean, MAX_SQNR_DB))
    return tuple(found)


def accuracy_of(
    task: LoadedTask,
    outputs: Floats,
    reference: Floats,
    labels: Integers,
    widths: Sequence[int] = (),
) -> float:
    """The task's score; for a ``generic`` task the share of samples within its tolerance.

    Args:
        task: of either kind.
        outputs: (N, classes), or packed.
        reference: PyTorch's at the same resolution.
        labels: (N,) class indexes; ignored for ``generic``.
        widths: elements per sample of each output of a ``generic`` task.

    Raises:
        TaskError: ``task.user-code-failed``.
    """
    if task.kind == "generic":
        return float(np.mean(within(outputs, reference, widths, task.tolerance)))
    with user_code(task.path, "score()"):
        return score_of(task.task, outputs, labels)


def _split(
    outputs: Floats, reference: Floats, widths: Sequence[int]
) -> Iterator[tuple[Floats, Floats]]:
    """Pairs (N, width) of each output and its reference; one pair where no widths are given."""
    got, wanted = outputs.reshape(len(outputs), -1), reference.reshape(len(reference), -1)
    ends = np.cumsum(widths or (wanted.shape[1],)).tolist()
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield got[:, start:end], wanted[:, start:end]


def is_wrong(scheme: str, comparison: Comparison, reference: Floats) -> bool:
    """Whether a float artifact differs more than rounding explains.

    Exporters have silent failures (constants read in the wrong order); only running both sides
    finds them. Integer schemes are judged by the accuracy gate instead.
    """
    share = _EXACT_SHARE.get(scheme)
    largest = max(1.0, float(np.abs(reference).max(initial=0.0)))
    return share is not None and comparison.max_output_error > share * largest
