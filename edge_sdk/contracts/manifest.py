"""The release manifest: what a release contains and what was measured about it."""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_sdk.contracts.audio import Enhancement, SoundInfo
from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.operating_point import OperatingPoint, RuntimeName, TensorSpec

CHUNK_BYTES = 64 * 1024
"""Blobs travel in chunks of this size; the last may be shorter."""


class BlobRef(Wire, kw_only=True):
    """A content-addressed blob and the hashes of its chunks."""

    digest: str
    """SHA-256 of the whole blob, 64 hexadecimal digits."""
    size_bytes: int
    chunks: tuple[str, ...]
    """SHA-256 of each :data:`CHUNK_BYTES` chunk, in order."""


class Derivation(Wire, kw_only=True):
    """How a file of the release is built from another one; see ``docs/ladder-bundle.md``."""

    base: str
    """Digest of the blob it is built from; never itself derived."""
    recipe: str
    """Digest of the blob that says how."""
    size_bytes: int
    """Of the result, whose digest is the file's own."""


DELTA_CODEC = "edge-delta-2"
"""What :mod:`edge_sdk.delta` reads; a device passes over deltas of any other codec."""


class DeltaRef(Wire, kw_only=True):
    """How a file can be made from one of an earlier release; see ``docs/deltas.md``."""

    target: str
    """Digest of the blob that it makes, which is among :attr:`Manifest.blobs`, too."""
    base: str
    """Digest of the blob that it starts from, on devices that have it."""
    delta: str
    """Digest of the blob that says how."""
    codec: str = DELTA_CODEC


class Preprocess(Wire, kw_only=True):
    """How a camera frame (H, W, C uint8) becomes the model's input."""

    color: Literal["gray", "rgb"]
    resize: Literal["linear_exact", "nearest", "area"] = "linear_exact"
    mean: tuple[float, ...]
    """Per channel, in pixel units 0..255; ``real = (pixel - mean) / std``."""
    std: tuple[float, ...]


class TaskInfo(Wire, kw_only=True):
    """What the model decides, so that a device can use its outputs."""

    name: str
    kind: Literal["classification", "generic"]
    """``classification``: one image in, one score per label out. ``generic``: any number of inputs
    and outputs, no labels; what they mean is the application's business."""
    labels: tuple[str, ...]
    """Empty for ``generic``."""
    preprocess: Preprocess
    """Means nothing for a ``generic`` task that takes no image."""
    reference_accuracy: float
    """PyTorch, float, full resolution, on the evaluation set; 0..1. A ``generic`` task has no
    labels: its accuracy is the share of held-out samples whose every output lies within
    :attr:`output_tolerance` of PyTorch's, which is 1 for PyTorch itself."""
    sound: SoundInfo | None = None
    """``generic`` only: how a network listens; None for one that does not."""
    enhance: Enhancement | None = None
    """``generic`` only: what cleans the sound before a network hears it, or is the task itself."""
    output_tolerance: float = 0.0
    """``generic`` only: a sample counts as right when, for each output, the root mean square of
    its error is at most this share of the root mean square of that output over all samples."""


class Artifact(Wire, kw_only=True):
    """One model file."""

    digest: str
    format: Literal["tflite", "onnx"]
    runtime: RuntimeName
    scheme: str
    height_px: int
    width_px: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden: str
    """SHA-256 of the golden vectors: an ``.npz`` with ``input`` (N, C, H, W float32, as the
    user's module takes it) and ``output`` (N, ... float32, dequantized, from this artifact on the
    host). With several, ``input_0``, ``input_1``... and ``output_0``..., in the order of
    :attr:`inputs` and :attr:`outputs`. Inputs have the user's layout, outputs the artifact's."""
    tolerance: dict[str, float]
    """Largest absolute difference of any output accepted, per runtime name."""
    states: tuple[tuple[int, int], ...] = ()
    """A streaming model's (input, output) positions, counted from 0 in the order of :attr:`inputs`
    and :attr:`outputs`: what leaves there goes in here at the next step, as it lies. States begin
    with real zeros."""


class Manifest(Wire, kw_only=True):
    """A release."""

    schema: int = SCHEMA
    release: str
    """Name of the line of releases, e.g. ``digits``."""
    version: str
    """What people call it, e.g. ``2`` or ``1.4.0``."""
    sequence: int
    """Grows with every release of this name; orders releases for rollback protection."""
    created: str
    """ISO 8601, UTC."""
    task: TaskInfo
    blobs: dict[str, BlobRef]
    """By digest: artifacts, golden files, recipes and deltas."""
    artifacts: dict[str, Artifact]
    """By digest."""
    ladders: dict[str, tuple[OperatingPoint, ...]]
    """By profile id, most faithful first, cheapest last."""
    derived: dict[str, Derivation] = msgspec.field(default_factory=dict)
    """By digest: artifacts and golden files that a device may build instead of fetching them; those
    that are not among :attr:`blobs` it must build."""
    deltas: tuple[DeltaRef, ...] = ()
    """Shorter ways for devices that run an earlier release."""
    mirror: str = ""
    """Base URL below which every blob can also be fetched by HTTP, named by its digest; empty for
    none. See :mod:`edge_sdk.contracts.mirror`."""
    provenance: dict[str, str] = msgspec.field(default_factory=dict)
    """Versions of the tools that built it, and digests of what went in."""
