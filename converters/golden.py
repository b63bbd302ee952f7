"""Golden vectors: a few inputs and this artifact's own answers, checked on every device."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.inspect import ModelFormat
from converters.schemes import Scheme
from converters.task import Floats, Integers
from edge_sdk.contracts.operating_point import TensorSpec

SAMPLES = 8

_STEPS = {
    "tflite": {"litert": 2.0, "tflite-runtime": 10.0},
    "onnx": {"onnxruntime": 2.0},
}
"""Accepted difference of an int8 output in steps of its scale. LiteRT 2.3 and ONNX Runtime (s8s8)
agree to the bit between x86-64 and aarch64; a step of slack covers kernels that keep a float
reduction inside. tflite-runtime 2.14 differs by up to 8 steps."""
_FLOAT_SHARE = 1e-3
"""Of the largest output: float kernels differ in the order of their sums."""
_DYNAMIC_SHARE = 0.03
"""Of the largest output: ranges found at run time turn rounding differences into whole steps."""

_LEAST = 1e-3
"""Outputs that are never larger count as this large: nothing is held to a share of zero."""


def choose_samples(labels: Integers, count: int = SAMPLES) -> list[int]:
    """Indexes of samples that cover as many classes as possible, in a fixed order."""
    order: list[int] = []
    rank: dict[int, int] = {}
    ranked = []
    for index, label in enumerate(labels.tolist()):
        rank[label] = rank.get(label, -1) + 1
        ranked.append((rank[label], index))
    order = [index for _, index in sorted(ranked)]
    return order[:count]


def golden_bytes(inputs: Floats | Sequence[Floats], outputs: Floats | Sequence[Floats]) -> bytes:
    """The ``.npz`` of :class:`~edge_sdk.contracts.manifest.Artifact.golden`, reproducibly.

    Args:
        inputs: (N, C, H, W) float32 as the user's module takes them; a sequence in the order of
            the file's inputs where there are several.
        outputs: (N, ...) float32, dequantized, in the file's layout; likewise.
    """
    buffer = io.BytesIO()
    arrays: dict[str, Any] = _named("input", inputs) | _named("output", outputs)
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _named(stem: str, arrays: Floats | Sequence[Floats]) -> dict[str, Floats]:
    """``stem`` for one array, ``stem_0``, ``stem_1``... for several."""
    several = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
    names = [stem] if len(several) == 1 else [f"{stem}_{i}" for i in range(len(several))]
    return {name: array.astype(np.float32) for name, array in zip(names, several, strict=True)}


def tolerances(
    kind: ModelFormat, scheme: Scheme, specs: Sequence[TensorSpec], outputs: Floats
) -> dict[str, float]:
    """Largest accepted output difference per runtime that can read the artifact's format.

    Args:
        kind: format of the artifact.
        scheme: of the artifact.
        specs: its declared outputs; with several, the coarsest one's step counts.
        outputs: its answers on the evaluation set, for the scale of a float output.
    """
    scales = [spec.scale for spec in specs if spec.scale is not None]
    if scales:
        return {runtime: steps * max(scales) for runtime, steps in _STEPS[kind].items()}
    largest = max(_LEAST, float(np.abs(outputs).max(initial=0.0)))
    stepped = scheme.mode == "dynamic" or scheme.mixed
    share = _DYNAMIC_SHARE if stepped else _FLOAT_SHARE
    return dict.fromkeys(_STEPS[kind], share * largest)
