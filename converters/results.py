"""What is known about an artifact once it has been verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from converters.partitions import MANY
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
    """Signal to quantization noise of the worst output against the reference at this resolution."""
    output_sqnr_db: dict[str, float] = field(default_factory=dict)
    """That of every output, by name in the module's order; empty where it was not measured."""
    floats: tuple[bool, ...] = ()
    """Of a mixed static file's layers with weights, in graph order: which compute in float32."""
    partitions: int = 0
    """Pieces LiteRT's delegate cuts the graph into; 0 where there is no delegate."""

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


@dataclass(frozen=True, slots=True)
class LayerScore:
    """What quantizing one layer alone does to the outputs."""

    name: str
    """As in the user's module where that is known."""
    op: str
    sqnr_db: float
    """Signal to quantization noise of the outputs with only this layer quantized."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Which layers of an artifact suffer from its scheme."""

    format: str
    size: str
    scheme: str
    layers: tuple[LayerScore, ...]
    """The worst first."""
    kept: tuple[str, ...] = ()
    """Layers left in float32 because of it; empty when nothing was mixed."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair that was tried on an artifact, and what it measurably did."""

    kind: Literal["equalization", "bias correction"]
    format: str
    size: str
    scheme: str
    layers: int
    """Pairs of layers rescaled, or layers corrected."""
    before_db: float
    after_db: float
    """Signal to quantization noise of the quantized file's outputs on calibration samples."""
    before_accuracy: float
    after_accuracy: float
    applied: bool


def warnings_about(measured: Sequence[Measured]) -> tuple[str, ...]:
    """What a user should know about artifacts that hold the gate."""
    slow = tuple(
        f"{item.path.name}: 16-bit activations run 30 to 100 times slower than 8-bit ones on a "
        "CPU; this file is for accelerators."
        for item in measured
        if "ai16" in item.scheme
    )
    cut = tuple(
        f"{item.path.name}: LiteRT's delegate cuts it into {item.partitions} pieces; an operator "
        "between them has no kernel there and may run faster in float."
        for item in measured
        if item.partitions > MANY
    )
    return slow + cut
