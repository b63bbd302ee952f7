"""Watching a float model's tensors over calibration samples, in two passes: extremes, then counts.

The second pass is only run for methods that look at more than the extremes. Memory stays bounded
by one sample's activations and one histogram per tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.calibrate.methods import BINS, Histogram, choose_range
from converters.layers import module_path
from converters.settings import Method
from edge_sdk.errors import ConversionError, TaskError

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
Range = tuple[float, float]
Ranges = dict[str, Range]
Run = Callable[[Feed], Mapping[str, Array]]
"""One inference of the float model: every activation by name."""
ENDLESS = -1e30
"""What is not above this stands for minus infinity; an exporter writes the least float32."""


def observe(run: Run, feeds: Sequence[Feed], method: Method) -> Ranges:
    """The range of every float tensor of a model, by tensor name.

    Args:
        run: one inference, returning all tensors.
        feeds: calibration samples, at least one.
        method: how ranges are chosen.

    Raises:
        TaskError: ``task.bad-calibration`` when there is no sample, or a tensor is not finite.
        ConversionError: ``conversion.endless-mask`` when a tensor is minus infinity on purpose.
    """
    if not feeds:
        raise TaskError(
            "bad-calibration", "There is no calibration sample.", "Yield at least one batch."
        )
    extremes: dict[str, Range] = {}
    for feed in feeds:
        for name, values in _floats(run(feed)):
            low, high = float(values.min()), float(values.max())
            _refuse_endless(name, low, high)
            old = extremes.get(name, (low, high))
            extremes[name] = (min(old[0], low), max(old[1], high))
    if method == "min-max":
        return {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in extremes.items()}
    counts = _counts(run, feeds, extremes)
    return {
        name: choose_range(Histogram(*extremes[name], counts[name]), method) for name in extremes
    }


def align(ranges: Ranges, groups: Iterable[Iterable[str]]) -> Ranges:
    """Give every tensor of a group the union of the group's ranges.

    A streaming state leaves as an output and comes back as an input: with two scales, feeding it
    back would rescale it at every step. Names that were not observed are passed over.
    """
    result = dict(ranges)
    for group in groups:
        known = [name for name in group if name in result]
        if known:
            low = min(result[name][0] for name in known)
            high = max(result[name][1] for name in known)
            result.update(dict.fromkeys(known, (low, high)))
    return result


def _refuse_endless(name: str, low: float, high: float) -> None:
    """Only finite ranges have steps. Samples are finite: the model makes what is not."""
    place = module_path(name) or name.rpartition("/")[2]
    if low <= ENDLESS and high < -ENDLESS:
        raise ConversionError(
            "endless-mask",
            f"The tensor {place} goes down to minus infinity: the module masks with it, and no "
            "integer range holds it and anything else.",
            "Mask with a finite number that is below every score by ten or twenty, such as -30, "
            "or leave the static schemes out (--schemes).",
        )
    if not np.isfinite((low, high)).all():
        raise TaskError(
            "bad-calibration",
            f"The tensor {place} is NaN or infinite on a calibration sample.",
            "Look for a division by zero or an overflow; calibrate with ordinary samples.",
        )


def _counts(run: Run, feeds: Sequence[Feed], extremes: dict[str, Range]) -> dict[str, Array]:
    counts: dict[str, Array] = {name: np.zeros(BINS) for name in extremes}
    for feed in feeds:
        for name, values in _floats(run(feed)):
            low, high = extremes[name]
            if high > low:
                counts[name] += np.histogram(values, bins=BINS, range=(low, high))[0]
    return counts


def _floats(tensors: Mapping[str, Array]) -> Iterable[tuple[str, Array]]:
    return (
        (name, values)
        for name, values in tensors.items()
        if values.dtype.kind == "f" and values.size
    )
