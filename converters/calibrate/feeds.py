"""Calibration samples as a float file's inputs want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.inspect import inspect_model
from converters.task import Floats
from converters.wiring import named_feeds

Feed = dict[str, npt.NDArray[Any]]
Samples = Floats | Sequence[Mapping[str, npt.NDArray[Any]]]
"""Packed samples (see :mod:`converters.packing`), or arrays by input name in the file's layout."""


def file_feeds(source: Path, samples: Samples) -> list[Feed]:
    """One feed per sample, by the input names that the format's runtime calls them by.

    Args:
        source: float file by one of our exporters.
        samples: packed in the module's order and layout; mappings pass through.
    """
    if not isinstance(samples, np.ndarray):
        return [dict(sample) for sample in samples]
    facts = inspect_model(source)
    return named_feeds(samples, facts.inputs, facts.format)
