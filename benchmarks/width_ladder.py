"""Four widths of a residual network, converted for both runtimes, as releases a worker serves.

The weights of a narrower width are the first channels of the wider one's. They are not trained:
what is measured is bytes and time, not accuracy.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from converters.module import contiguous
from converters.onnx_export import export_onnx
from converters.onnx_quantize import quantize_onnx
from converters.tflite_export import export_tflite
from converters.tflite_quantize import quantize_tflite
from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.release import BLOBS_NAME, CONVERSION_NAME, MANIFEST_NAME, create_release
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import Artifact, Manifest, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.runtime.engine import dequantize, quantize, to_layout
from edge_sdk.runtime.negotiate import open_engine

WIDTHS = (1.0, 0.75, 0.5, 0.25)
CHANNELS = (32, 64, 128, 256)
SIDE_PX = 64
LABELS = tuple(f"class-{number}" for number in range(10))
PROFILE = "x86-generic"
KINDS = ("onnx fp32", "onnx static_wi8_ai8", "tflite fp32", "tflite static_wi8_ai8")
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


@dataclass(frozen=True)
class LadderRelease:
    """A release on disk."""

    manifest: Manifest
    path: Path
    blobs: Path


class _Block(nn.Module):
    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(wide_in, wide_out, 3, stride, 1)
        self.second = nn.Conv2d(wide_out, wide_out, 3, 1, 1)
        same = stride == 1 and wide_in == wide_out
        self.past = nn.Identity() if same else nn.Conv2d(wide_in, wide_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.past(x))


class Network(nn.Module):
    """Four residual blocks of ``width`` times their channels."""

    def __init__(self, width: float) -> None:
        super().__init__()
        wide = [int(channels * width) for channels in CHANNELS]
        self.stem = nn.Conv2d(3, wide[0], 3, 1, 1)
        sources = (wide[0], *wide)
        self.blocks = nn.Sequential(
            *(_Block(sources[i], wide[i], 1 if i == 0 else 2) for i in range(len(wide)))
        )
        self.head = nn.Linear(wide[-1], len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))
        return scores


def narrowed(full: Network, width: float) -> nn.Module:
    """The first channels of every layer."""
    narrow = Network(width).eval()
    wide = full.state_dict()
    cut = {
        name: wide[name][tuple(slice(size) for size in value.shape)]
        for name, value in narrow.state_dict().items()
    }
    narrow.load_state_dict(cut)
    return contiguous(narrow)


def write_models(folder: Path, kinds: tuple[str, ...] = KINDS) -> dict[str, list[Path]]:
    """Every width in every kind, widest first."""
    torch.manual_seed(0)
    full = Network(1.0).eval()
    calibration = torch.randn(16, 3, SIDE_PX, SIDE_PX).numpy()
    found: dict[str, list[Path]] = {kind: [] for kind in kinds}
    for width in WIDTHS:
        module, example = narrowed(full, width), torch.zeros(1, 3, SIDE_PX, SIDE_PX)
        for kind in kinds:
            format_, scheme = kind.split()
            path, plain = (folder / f"{width}-{name}.{format_}" for name in (scheme, "fp32"))
            if not plain.exists():
                (export_onnx if format_ == "onnx" else export_tflite)(module, example, plain)
            if scheme != "fp32":
                quantizer = quantize_onnx if format_ == "onnx" else quantize_tflite
                quantizer(plain, scheme, calibration, path)
            found[kind].append(path)
    return found


def build_release(folder: Path, kind: str, models: list[Path], *, whole: bool) -> LadderRelease:
    """A release of one kind's widths, by the commands' own functions."""
    conversion = folder / "conversion"
    conversion.mkdir(parents=True)
    artifacts, points, files = {}, [], {}
    for width, model in zip(WIDTHS, models, strict=True):
        artifact, golden = _artifact(kind, model)
        for name, data in ((model.name, model.read_bytes()), (f"{model.name}.npz", golden)):
            (conversion / name).write_bytes(data)
            files[blob_ref(data).digest] = name
        artifacts[artifact.digest] = artifact
        points.append(_point(width, artifact))
    document = Conversion(
        created="2026-01-01T00:00:00+00:00",
        task=TaskInfo(
            name="widths",
            kind="classification",
            labels=LABELS,
            preprocess=Preprocess(color="rgb", mean=(127.0,) * 3, std=(64.0,) * 3),
            reference_accuracy=0.0,
        ),
        artifacts=artifacts,
        ladders={PROFILE: tuple(points), "widest": (points[0],)},
        files=files,
    )
    (conversion / CONVERSION_NAME).write_bytes(encode(document))
    release = folder / "release"
    manifest = create_release(conversion, release, name="widths", version="1", whole=whole)
    return LadderRelease(manifest, release / MANIFEST_NAME, release / BLOBS_NAME)


def _artifact(kind: str, model: Path) -> tuple[Artifact, bytes]:
    format_, scheme = kind.split()
    vectors = np.random.default_rng(1).normal(size=(2, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    engine = open_engine(model, format=format_)
    spec, out = engine.inputs[0], engine.outputs[0]
    answers = [
        dequantize(engine.run([to_layout(quantize(each[None], spec), spec)])[0], out).copy()
        for each in vectors
    ]
    inputs, outputs = engine.inputs, engine.outputs
    engine.close()
    packed = io.BytesIO()
    np.savez(packed, input=vectors, output=np.concatenate(answers))
    artifact = Artifact(
        digest=blob_ref(model).digest,
        format=format_,
        runtime=RUNTIMES[format_],
        scheme=scheme,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        inputs=inputs,
        outputs=outputs,
        golden=blob_ref(packed.getvalue()).digest,
        tolerance={RUNTIMES[format_]: 1e-2},
    )
    return artifact, packed.getvalue()


def _point(width: float, artifact: Artifact) -> OperatingPoint:
    return OperatingPoint(
        id=f"w{width:.2f}-{SIDE_PX}x{SIDE_PX}-{artifact.scheme}-{artifact.runtime}",
        artifact=artifact.digest,
        runtime=artifact.runtime,
        scheme=artifact.scheme,
        channel_width=width,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        threads=1,
        accuracy=0.0,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=0.0,
    )
