"""Samples for an imported file: from the user's ``.npz``, or noise where there is none."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.packing import MAX_WHOLE
from converters.task import Integers
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.engine import dequantize

MAX_SAMPLES = 2000
MAX_CALIBRATION = 256
MAX_BYTES = 2 * 1024**3
NOISE_SAMPLES = 16
LABELS = "labels"
"""Name of the array with class indexes."""
_ENOUGH_TO_SPLIT = 16

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Given:
    """Samples by input, in the file's order and layout, as real values."""

    arrays: tuple[Array, ...]
    labels: Integers | None
    real: bool
    """False for noise: good enough to compare two files, not to fix ranges."""

    def calibration(self) -> tuple[Array, ...]:
        """Samples that fix ranges; apart from :meth:`held_out` where there are enough."""
        split = len(self.arrays[0]) >= _ENOUGH_TO_SPLIT
        return tuple((a[::2] if split else a)[:MAX_CALIBRATION] for a in self.arrays)

    def held_out(self) -> Given:
        """Samples to verify on."""
        if not self.real or len(self.arrays[0]) < _ENOUGH_TO_SPLIT:
            return self
        labels = self.labels[1::2] if self.labels is not None else None
        return Given(tuple(a[1::2] for a in self.arrays), labels, self.real)


def noise(inputs: Sequence[TensorSpec]) -> Given:
    """Reproducible noise; zeros for whole-number inputs, which may be indexes."""
    random = np.random.default_rng(0)
    arrays = []
    for spec in inputs:
        shape = (NOISE_SAMPLES, *spec.shape[1:])
        whole = spec.scale is None and not spec.dtype.startswith("float")
        found = np.zeros(shape, spec.dtype) if whole else random.normal(size=shape)
        arrays.append(found if whole else found.astype(np.float32))
    return Given(tuple(arrays), None, real=False)


def read_samples(path: Path, inputs: Sequence[TensorSpec]) -> Given:
    """The arrays of a ``.npz``, checked against the file's inputs.

    Args:
        path: one array (N, ...) per input under the input's name; any name when there is only one
            input; and optionally ``labels``, (N,) class indexes.
        inputs: of the model file.

    Raises:
        ConversionError: ``conversion.bad-samples``.
    """
    held = _load(path)
    labels = held.pop(LABELS, None) if LABELS not in {s.name for s in inputs} else None
    if len(inputs) == 1 and len(held) == 1:
        held = {inputs[0].name: next(iter(held.values()))}
    missing = [spec.name for spec in inputs if spec.name not in held]
    if missing:
        raise bad_samples(
            path,
            f"holds no array {missing[0]!r}, only {', '.join(sorted(held)[:10]) or 'nothing'}",
        )
    arrays = tuple(_checked(path, held[spec.name], spec) for spec in inputs)
    counts = {len(array) for array in arrays}
    if len(counts) != 1 or not min(counts):
        raise bad_samples(path, f"has arrays of {sorted(counts)} samples")
    arrays = tuple(array[:MAX_SAMPLES] for array in arrays)
    return Given(arrays, _labels(path, labels, max(counts)), real=True)


def bad_samples(path: Path, what: str) -> ConversionError:
    """Sample data that do not fit the model."""
    return ConversionError(
        "bad-samples",
        f"{path} {what}.",
        "Save with numpy.savez(path, INPUT=array): one array per input, the samples along the "
        "first axis, in the layout and normalisation the model file itself takes.",
    )


def _load(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise bad_samples(path, f"unpacks to over {MAX_BYTES >> 30} GiB")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise bad_samples(path, f"is no readable .npz of plain arrays ({error})") from error


def _checked(path: Path, array: Array, spec: TensorSpec) -> Array:
    if array.ndim != len(spec.shape) or array.shape[1:] != tuple(spec.shape[1:]):
        swapped = ""
        if array.ndim == 4 and sorted(array.shape[1:]) == sorted(spec.shape[1:]):
            swapped = f"; the file is {spec.layout}, so transpose the array"
        expected = f"(N, {', '.join(map(str, spec.shape[1:]))})"
        raise bad_samples(
            path, f"has {spec.name!r} of shape {array.shape}, the model takes {expected}{swapped}"
        )
    whole = spec.scale is None and not spec.dtype.startswith("float")
    if array.dtype.kind not in ("iub" if whole else "fiub"):
        raise bad_samples(path, f"has {spec.name!r} of {array.dtype}, the model takes {spec.dtype}")
    if whole:
        if array.size and np.abs(array.astype(np.float64)).max() > MAX_WHOLE:
            raise bad_samples(path, f"has numbers over {MAX_WHOLE} in {spec.name!r}")
        return array.astype(spec.dtype)
    if spec.scale is not None and array.dtype == np.dtype(spec.dtype):
        array = dequantize(array, spec)
    found: Array = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise bad_samples(path, f"has NaN or infinity in {spec.name!r}")
    return found


def _labels(path: Path, labels: Array | None, count: int) -> Integers | None:
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise bad_samples(path, f"has labels that are not {count} class indexes from 0 up")
    return labels[:MAX_SAMPLES].astype(np.int64)
