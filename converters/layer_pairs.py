"""Quantized files of a finished conversion beside the float files they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.bench import read_conversion
from converters.packing import pack
from converters.task import Floats
from converters.wiring import module_order
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.errors import ConversionError


@dataclass(frozen=True, slots=True)
class Pair:
    """A quantized file, its float sibling, and samples for both."""

    quantized: Path
    source: Path
    scheme: str
    samples: Floats
    """Packed, see :mod:`converters.packing`."""
    exported: bool


def quantized_pairs(folder: Path) -> list[Pair]:
    """All pairs of a conversion that differ in precision alone.

    Raises:
        ConversionError: ``conversion.not-a-conversion``, ``conversion.file-missing``.
    """
    conversion = read_conversion(folder)
    files = conversion.files
    floats = {
        (item.format, item.height_px, item.width_px): folder / files[digest]
        for digest, item in conversion.artifacts.items()
        if item.scheme == "fp32"
    }
    found = []
    for digest, item in conversion.artifacts.items():
        source = floats.get((item.format, item.height_px, item.width_px))
        if item.scheme == "fp32" or source is None:
            continue
        found.append(
            Pair(
                quantized=folder / files[digest],
                source=source,
                scheme=item.scheme,
                samples=golden_samples(folder / files[item.golden], item),
                exported="imported-from" not in conversion.provenance,
            )
        )
    return sorted(found, key=lambda pair: pair.quantized.name)


def golden_samples(golden: Path, item: Artifact) -> Floats:
    """The golden inputs, packed in the module's order."""
    try:
        with np.load(golden, allow_pickle=False) as arrays:
            several = len(item.inputs) > 1
            names = [f"input_{i}" if several else "input" for i in range(len(item.inputs))]
            return pack([arrays[names[i]] for i in module_order(item.inputs)])
    except (OSError, ValueError, KeyError) as error:
        raise ConversionError(
            "file-missing", f"{golden} is missing or damaged.", "Convert the model again."
        ) from error
