"""A convolutional network of a wanted cost, as a release that a worker serves."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.manifest import Artifact, Manifest, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import OperatingPoint, TensorSpec

SIDE_PX = 96
CHANNELS = 32
LABELS = tuple(f"class-{number}" for number in range(10))
PROFILE = "x86-generic"
MOST_LAYERS = 512

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BenchmarkRelease:
    """A release on disk."""

    manifest: Path
    blobs: Path
    model: Path
    preprocess: Preprocess
    inference_ms: float
    """Of the bare runtime, one thread, when it was built."""


def build_release(folder: Path, least_ms: float) -> BenchmarkRelease:
    """A network that takes at least ``least_ms`` per inference here, on one thread.

    Args:
        folder: where to.
        least_ms: wanted cost; layers are added until it is reached.
    """
    model = folder / "model.onnx"
    layers, took_ms = 2, 0.0
    while took_ms < least_ms and layers < MOST_LAYERS:
        layers = min(
            MOST_LAYERS, max(layers + 1, int(layers * least_ms / took_ms) if took_ms else 2)
        )
        _write_model(model, layers)
        took_ms = inference_ms(model)
    preprocess = Preprocess(color="rgb", mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    manifest, blobs = _write_release(folder, model, preprocess)
    return BenchmarkRelease(manifest, blobs, model, preprocess, took_ms)


def open_session(model: Path) -> ort.InferenceSession:
    """The runtime as an agent on this profile sets it up: one thread, CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def inference_ms(model: Path, runs: int = 15) -> float:
    """Fastest of some inferences: noise only ever adds."""
    session = open_session(model)
    image = np.zeros((1, 3, SIDE_PX, SIDE_PX), np.float32)
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, {"image": image})
        took.append(time.perf_counter() - start)
    return min(took) * 1e3


def _write_model(path: Path, layers: int) -> None:
    rng = np.random.default_rng(0)
    nodes, weights, name, width = [], [], "image", 3
    for layer in range(layers):
        kernel = rng.normal(0, 0.05, (CHANNELS, width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{layer}"))
        stride = [2, 2] if layer == 0 else [1, 1]
        inputs = [name, f"kernel{layer}"]
        nodes.append(
            helper.make_node("Conv", inputs, [f"conv{layer}"], pads=[1] * 4, strides=stride)
        )
        nodes.append(helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"]))
        name, width = f"relu{layer}", CHANNELS
    head = rng.normal(0, 1, (CHANNELS, len(LABELS))).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
    ]
    shape, out = (1, 3, SIDE_PX, SIDE_PX), (1, len(LABELS))
    graph = helper.make_graph(
        nodes,
        "convnet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, out)],
        weights,
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)


def _write_release(folder: Path, model: Path, preprocess: Preprocess) -> tuple[Path, Path]:
    blobs = folder / "blobs"
    blobs.mkdir()
    vectors = np.random.default_rng(1).normal(size=(2, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    session = open_session(model)
    outputs = np.concatenate([session.run(None, {"image": x[None]})[0] for x in vectors])
    packed = io.BytesIO()
    np.savez(packed, input=vectors, output=outputs)
    refs = {}
    for data in (model.read_bytes(), packed.getvalue()):
        ref = blob_ref(data)
        refs[ref.digest] = ref
        (blobs / ref.digest).write_bytes(data)
    digest, golden = refs
    manifest = Manifest(
        release="convnet",
        version="1",
        sequence=1,
        created="2026-01-01T00:00:00Z",
        task=TaskInfo(
            name="convnet",
            kind="classification",
            labels=LABELS,
            preprocess=preprocess,
            reference_accuracy=0.0,
        ),
        blobs=refs,
        artifacts={digest: _artifact(digest, golden)},
        ladders={PROFILE: (_point(digest),)},
    )
    path = folder / "manifest.json"
    path.write_bytes(encode(manifest))
    return path, blobs


def _artifact(digest: str, golden: str) -> Artifact:
    shape, out = (1, 3, SIDE_PX, SIDE_PX), (1, len(LABELS))
    return Artifact(
        digest=digest,
        format="onnx",
        runtime="onnxruntime",
        scheme="fp32",
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        inputs=(TensorSpec(name="image", dtype="float32", shape=shape, layout="NCHW"),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=out, layout="NC"),),
        golden=golden,
        tolerance={"onnxruntime": 1e-3},
    )


def _point(digest: str) -> OperatingPoint:
    return OperatingPoint(
        id=f"w1.00-{SIDE_PX}x{SIDE_PX}-fp32-onnxruntime",
        artifact=digest,
        runtime="onnxruntime",
        scheme="fp32",
        channel_width=1.0,
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        threads=1,
        accuracy=0.0,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=0.0,
    )
