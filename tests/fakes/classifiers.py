"""Real model files that name the brightest channel of an image, and releases made of them.

The logits are the channel means, so that what is right for a frame is known without training.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.manifest import Artifact, Manifest, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import OperatingPoint, TensorSpec
from edge_sdk.runtime.engine import Array, dequantize, quantize, to_layout
from edge_sdk.runtime.negotiate import open_engine

LABELS = ("red", "green", "blue")
PROFILE = "x86-generic"
PREPROCESS = Preprocess(color="rgb", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
INT8_SCALE, INT8_ZERO_POINT = 1 / 255, -128


@dataclass(frozen=True)
class Recipe:
    """One point of a made-up ladder."""

    kind: str
    """``onnx``, ``tflite``, ``tflite-int8``, or an ONNX file that misbehaves in service:
    ``onnx-hang`` never returns, ``onnx-overflow`` gives infinite scores, ``onnx-upside-down``
    names the darkest channel."""
    size_px: int = 16
    threads: int = 1
    padding_bytes: int = 0
    """Makes an ONNX file larger, so that its download takes a while."""


@dataclass(frozen=True)
class DeviceRelease:
    """A release as it lies on a device."""

    manifest: Manifest
    path: Path
    blobs: Path

    def artifact(self, index: int) -> Path:
        """The blob of a point's model."""
        return self.blobs / self.manifest.ladders[PROFILE][index].artifact


def make_release(
    folder: Path, recipes: Sequence[Recipe], *, golden_shift: float = 0.0, version: str = "1"
) -> DeviceRelease:
    """Write models, golden vectors and manifest.

    Args:
        folder: where to.
        recipes: the ladder.
        golden_shift: added to the recorded outputs, so that the golden test must fail.
        version: of the release.
    """
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    artifacts, points, refs = {}, [], {}
    for number, recipe in enumerate(recipes):
        artifact = _artifact(folder, blobs, recipe, golden_shift)
        artifacts[artifact.digest] = artifact
        points.append(_point(number, recipe, artifact))
        for digest in (artifact.digest, artifact.golden):
            refs[digest] = blob_ref(blobs / digest)
    task = TaskInfo(
        name="brightest",
        kind="classification",
        labels=LABELS,
        preprocess=PREPROCESS,
        reference_accuracy=1.0,
    )
    manifest = Manifest(
        release="brightest",
        version=version,
        sequence=1,
        created="2026-01-01T00:00:00Z",
        task=task,
        blobs=refs,
        artifacts=artifacts,
        ladders={PROFILE: tuple(points)},
    )
    path = folder / "manifest.json"
    path.write_bytes(encode(manifest))
    return DeviceRelease(manifest, path, blobs)


def colour_frames(count: int, size_px: int = 16, seed: int = 0) -> tuple[Array, list[str]]:
    """Noisy (N, size, size, 3) B, G, R frames, each brightest in one channel, and its name."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 60, (count, size_px, size_px, 3), dtype=np.uint8)
    truth = rng.integers(0, 3, count)
    for frame, channel in zip(frames, truth, strict=True):
        frame[..., 2 - channel] += 150
    return frames, [LABELS[channel] for channel in truth]


def write_frames(path: Path, count: int = 40, **options: int) -> Path:
    """An ``.npz`` of labelled frames."""
    frames, labels = colour_frames(count, **options)
    np.savez(path, frames=frames, labels=np.array(labels))
    return path


def _artifact(folder: Path, blobs: Path, recipe: Recipe, golden_shift: float) -> Artifact:
    model = folder / "model"
    if recipe.kind.startswith("onnx"):
        spec, out = _write_onnx(model, recipe), _float("scores", (1, 3))
    else:
        spec, out = _write_tflite(model, recipe)
    format_ = "onnx" if recipe.kind.startswith("onnx") else "tflite"
    digest = _store(blobs, model.read_bytes())
    vectors = np.random.default_rng(1).random((4, 3, recipe.size_px, recipe.size_px), np.float32)
    engine = open_engine(blobs / digest, format=format_)
    hang = recipe.kind == "onnx-hang"
    outputs = [
        np.zeros((1, 3), np.float32)
        if hang
        else dequantize(engine.run([to_layout(quantize(x[None], spec), spec)])[0], out).copy()
        for x in vectors
    ]
    engine.close()
    packed = io.BytesIO()
    np.savez(packed, input=vectors, output=np.concatenate(outputs) + np.float32(golden_shift))
    return Artifact(
        digest=digest,
        format=format_,
        runtime="onnxruntime" if format_ == "onnx" else "litert",
        scheme="static_wi8_ai8" if spec.scale else "fp32",
        height_px=recipe.size_px,
        width_px=recipe.size_px,
        inputs=(spec,),
        outputs=(out,),
        golden=_store(blobs, packed.getvalue()),
        tolerance={"litert": 1e-3, "onnxruntime": 1e-3},
    )


def _store(blobs: Path, data: bytes) -> str:
    digest = blob_ref(data).digest
    (blobs / digest).write_bytes(data)
    return digest


def _point(number: int, recipe: Recipe, artifact: Artifact) -> OperatingPoint:
    return OperatingPoint(
        id=f"p{number}-{recipe.size_px}x{recipe.size_px}-{artifact.scheme}-{artifact.runtime}",
        artifact=artifact.digest,
        runtime=artifact.runtime,
        scheme=artifact.scheme,
        channel_width=1.0,
        height_px=recipe.size_px,
        width_px=recipe.size_px,
        threads=recipe.threads,
        accuracy=1.0,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=0.1,
    )


def _float(name: str, shape: tuple[int, ...]) -> TensorSpec:
    layout = "NCHW" if len(shape) == 4 else "NC"
    return TensorSpec(name=name, dtype="float32", shape=shape, layout=layout)


def _write_onnx(path: Path, recipe: Recipe) -> TensorSpec:
    """Channel means; ``onnx-hang`` spins in the runtime for hours on any input but zeros."""
    shape = (1, 3, recipe.size_px, recipe.size_px)
    gain = {"onnx-upside-down": -1.0, "onnx-overflow": np.inf}.get(recipe.kind, 1.0)
    with np.errstate(invalid="ignore"):
        weight = np.eye(3, dtype=np.float32) * np.float32(gain)
    weights = [numpy_helper.from_array(weight, "w")]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores" if not _hangs(recipe) else "product"]),
    ]
    if _hangs(recipe):
        nodes += _spin(weights)
    graph = helper.make_graph(
        nodes,
        "brightest",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 3))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if recipe.padding_bytes:
        noise = np.random.default_rng(0).bytes(recipe.padding_bytes // 2).hex()
        model.metadata_props.add(key="padding", value=noise)
    onnx.save(model, path)
    return _float("image", shape)


def _hangs(recipe: Recipe) -> bool:
    return recipe.kind == "onnx-hang"


def _spin(weights: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """A loop of ``1e12 * ceil(max(means))`` rounds that passes its value through."""
    weights.append(numpy_helper.from_array(np.float32([1e12]), "rounds"))
    weights.append(numpy_helper.from_array(np.array(True), "yes"))
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Identity", ["value"], ["same"]),
        ],
        "body",
        [
            info("round", TensorProto.INT64, ()),
            info("go_on", TensorProto.BOOL, ()),
            info("value", TensorProto.FLOAT, (1, 3)),
        ],
        [info("still", TensorProto.BOOL, ()), info("same", TensorProto.FLOAT, (1, 3))],
    )
    return [
        helper.make_node("ReduceMax", ["product"], ["top"], keepdims=0),
        helper.make_node("Ceil", ["top"], ["one"]),
        helper.make_node("Mul", ["one", "rounds"], ["count_f"]),
        helper.make_node("Cast", ["count_f"], ["count"], to=TensorProto.INT64),
        helper.make_node("Loop", ["count", "yes", "product"], ["scores"], body=body),
    ]


def _write_tflite(path: Path, recipe: Recipe) -> tuple[TensorSpec, TensorSpec]:
    """One MEAN operator over height and width of an NHWC image."""
    int8 = recipe.kind == "tflite-int8"
    shape = (1, recipe.size_px, recipe.size_px, 3)
    axes = np.array([1, 2], np.int32)
    model = tfl.ModelT()
    model.version = 3
    model.buffers = [tfl.BufferT(), tfl.BufferT()]
    model.buffers[1].data = np.frombuffer(axes.tobytes(), np.uint8)
    kind = tfl.TensorType.INT8 if int8 else tfl.TensorType.FLOAT32
    graph = tfl.SubGraphT()
    graph.tensors = [
        _tensor("image", shape, kind, 0, int8),
        _tensor("axes", (2,), tfl.TensorType.INT32, 1, False),
        _tensor("scores", (1, 3), kind, 0, int8),
    ]
    graph.inputs, graph.outputs = [0], [2]
    call = tfl.OperatorT()
    call.opcodeIndex, call.inputs, call.outputs = 0, [0, 1], [2]
    call.builtinOptionsType = tfl.BuiltinOptions.ReducerOptions
    call.builtinOptions = tfl.ReducerOptionsT()
    call.builtinOptions.keepDims = False
    graph.operators = [call]
    model.subgraphs = [graph]
    code = tfl.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.MEAN
    code.version = 2 if int8 else 1
    model.operatorCodes = [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    scale, zero = (INT8_SCALE, INT8_ZERO_POINT) if int8 else (None, None)
    dtype = "int8" if int8 else "float32"
    return (
        TensorSpec(
            name="image", dtype=dtype, shape=shape, layout="NHWC", scale=scale, zero_point=zero
        ),
        TensorSpec(
            name="scores", dtype=dtype, shape=(1, 3), layout="NC", scale=scale, zero_point=zero
        ),
    )


def _tensor(
    name: str, shape: tuple[int, ...], kind: int, buffer: int, quantized: bool
) -> tfl.TensorT:
    tensor = tfl.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), kind, buffer
    tensor.quantization = tfl.QuantizationParametersT()
    if quantized:
        tensor.quantization.scale = np.array([INT8_SCALE], np.float32)
        tensor.quantization.zeroPoint = np.array([INT8_ZERO_POINT], np.int64)
    return tensor
