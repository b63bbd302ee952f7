"""What is known about an artifact once it has been verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_sdk.contracts.operating_point import RuntimeName, TensorSpec

RUNTIME_OF: dict[str, RuntimeName] = {"tflite": "litert", "onnx": "onnxruntime"}
"""The runtime that verifies and runs each format."""
FORMAT_OF = {runtime: kind for kind, runtime in RUNTIME_OF.items()}


@dataclass(frozen=True, slots=True)
class Latency:
    """Timed single inferences on this host."""

    median_ms: float
    p95_ms: float
    runs: int
    age_s: float = 0.0
    """Since when, where the measurement is an earlier one of this kind of host."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A verified artifact."""

    path: Path
    digest: str
    size_bytes: int
    format: Literal["tflite", "onnx"]
    scheme: str
    height_px: int
    width_px: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    accuracy: float
    accuracy_drop: float
    """Against PyTorch at the full resolution."""
    scheme_drop: float
    """Against PyTorch at the artifact's own resolution."""
    agreement: float
    max_output_error: float
    distance: float
    """See :class:`converters.measure.Comparison`."""
    latency: dict[int, Latency]
    """By number of threads."""
    memory_mib: float
    golden: Path
    golden_digest: str
    tolerance: dict[str, float]
    sqnr_db: float = 0.0
    """Signal to quantization noise of the worst output against PyTorch at this resolution."""

    @property
    def runtime(self) -> RuntimeName:
        """The runtime this format runs on."""
        return RUNTIME_OF[self.format]

    @property
    def size(self) -> str:
        """Resolution, e.g. ``32x32``."""
        return f"{self.height_px}x{self.width_px}"

    @property
    def name(self) -> str:
        """What a person calls it, e.g. ``32x32-static_wi8_ai8-litert``."""
        return f"{self.size}-{self.scheme}-{self.runtime}"
