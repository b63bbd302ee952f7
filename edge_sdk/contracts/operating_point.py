"""One rung of a release's ladder: width x resolution x precision, with what was measured."""

from __future__ import annotations

from typing import Literal

from edge_sdk.contracts.base import Wire

RuntimeName = Literal["litert", "onnxruntime"]
Layout = Literal["NCHW", "NHWC", "NC", "other"]


class TensorSpec(Wire, kw_only=True):
    """A model input or output as the artifact declares it."""

    name: str
    dtype: str
    """numpy name of the element type: ``float32``, ``int8``, ``uint8``..."""
    shape: tuple[int, ...]
    layout: Layout
    scale: float | None = None
    """Quantization scale; ``real = scale * (stored - zero_point)``. None for floats."""
    zero_point: int | None = None


class LatencyBand(Wire, kw_only=True):
    """A latency as an interval; a prediction is never a bare number."""

    low_ms: float
    mid_ms: float
    high_ms: float
    basis: str
    """What stands behind it: the cost-model row, its fit size and error, or the measurement."""


class Cascade(Wire, kw_only=True):
    """A cheaper point that answers first; the one that carries this looks where that is unsure.

    Shares and latency are those of frames that had no part in choosing the threshold (cross
    validation); see ``docs/cascade.md``.
    """

    first: str
    """Id of the point that answers first: one of the same ladder, further down."""
    threshold: float
    """Least margin with which its answer stands: the difference of its two largest softmax
    probabilities, 0..1."""
    escalated: float
    """Share of frames that are looked at again; 0..1."""
    disagreement: float
    """Share of all frames that are decided otherwise than by this point alone; 0..1."""
    mean_ms: float
    """Expected mean latency of a frame."""
    alone_ms: float
    """The same without the first point, by the same clock."""
    samples: int
    """Frames that the threshold was chosen on."""


class OperatingPoint(Wire, kw_only=True):
    """A runnable configuration of the release on one device profile."""

    id: str
    """Unique within the ladder, e.g. ``w1.00-32x32-static_wi8_ai8-litert``."""
    artifact: str
    """SHA-256 (hex) of the model file."""
    runtime: RuntimeName
    scheme: str
    """Quantization scheme in decodable form: ``fp32``, ``wfp16``, ``static_wi8_ai8``..."""
    channel_width: float
    """Fraction of the full network's channels, 1.0 for the full width."""
    height_px: int
    width_px: int
    threads: int
    accuracy: float
    """Measured on the task's evaluation set, in the artifact's own runtime; 0..1."""
    accuracy_drop: float
    """Reference accuracy (PyTorch, float, full resolution) minus :attr:`accuracy`."""
    agreement: float
    """Share of evaluation samples with the same decision as the reference; 0..1."""
    max_output_error: float
    """Largest absolute difference of any output element against PyTorch at this resolution."""
    host_latency_ms: float
    """Median on the converting host, same runtime, threads as far as the host has cores."""
    predicted: LatencyBand | None = None
    """Expected on the profile's device; None when the profile is uncalibrated."""
    memory_mib: float = 0.0
    """Peak resident memory of a process that runs this point, minus the same process idle."""
    cascade: Cascade | None = None
    """What may answer in this point's place; None where that does not pay."""
