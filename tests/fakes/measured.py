"""Verified artifacts made up for tests of pure code."""

from __future__ import annotations

from pathlib import Path

from converters.results import Latency, Measured
from edge_sdk.contracts.operating_point import TensorSpec


def measured(scheme: str, size: str, kind: str, accuracy: float, distance: float) -> Measured:
    """An artifact that was never built: what matters to gate and ladder is up to the test."""
    height, width = map(int, size.split("x"))
    spec = TensorSpec(name="x", dtype="float32", shape=(1,), layout="other")
    median_ms = height * width * (0.001 if "wi8" in scheme else 0.002)
    times = {threads: Latency(median_ms, 2 * median_ms, 20) for threads in range(1, 65)}
    return Measured(
        path=Path(f"{size}-{scheme}.{kind}"),
        digest=f"{size}{scheme}{kind}",
        size_bytes=1000,
        format=kind,  # type: ignore[arg-type]
        scheme=scheme,
        height_px=height,
        width_px=width,
        inputs=(spec,),
        outputs=(spec,),
        accuracy=accuracy,
        accuracy_drop=0.99 - accuracy,
        scheme_drop=0.0,
        agreement=1.0,
        max_output_error=distance,
        distance=distance,
        latency=times,
        memory_mib=20.0,
        golden=Path("g.npz"),
        golden_digest="g",
        tolerance={},
    )


def both_formats() -> list[Measured]:
    """Two resolutions, three schemes, both formats."""
    return [
        measured(scheme, size, kind, accuracy, distance + (size == "24x24"))
        for kind in ("tflite", "onnx")
        for size, accuracy in (("32x32", 0.99), ("24x24", 0.98))
        for scheme, distance in (("fp32", 0.0), ("wfp16", 0.01), ("static_wi8_ai8", 0.1))
    ]
