"""Real streaming networks that say how loud it is, and releases made of them.

The score follows the mean of the log energies, smoothed in a state, so that what is right for a
sound is known without training.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.contracts.audio import (
    Enhancement,
    EnhanceSpec,
    FeatureSpec,
    SoundInfo,
    WakeWord,
)
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.manifest import Artifact, Manifest, Preprocess, TaskInfo
from edge_sdk.contracts.operating_point import Layout, OperatingPoint, TensorSpec
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.classifiers import PROFILE, DeviceRelease
from tests.fakes.models import save_onnx

BANDS, FRAMES = 8, 2
LOUD = SoundInfo(
    features=FeatureSpec(bands=BANDS, compression="log"),
    frames_per_step=FRAMES,
    labels=("loud",),
    activation="none",
    words=(WakeWord(label="loud", cutoff=0.5, window_steps=3, refractory_s=0.5),),
)
CLEANS = EnhanceSpec()
HEARS, DEAF = -6.0, 50.0
"""Thresholds of log energy: a network that hears, and one that never does."""


def make_listening_release(
    folder: Path, thresholds: Sequence[float] = (HEARS,), sound: SoundInfo = LOUD
) -> DeviceRelease:
    """A release with one point per threshold."""
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    artifacts = [_artifact(folder, blobs, threshold) for threshold in thresholds]
    digests = {digest for item in artifacts for digest in (item.digest, item.golden)}
    manifest = Manifest(
        release="loudness",
        version="1",
        sequence=1,
        created="2026-01-01T00:00:00Z",
        task=TaskInfo(
            name="loudness",
            kind="generic",
            labels=(),
            preprocess=Preprocess(color="gray", mean=(0.0,), std=(1.0,)),
            reference_accuracy=1.0,
            sound=sound,
        ),
        blobs={digest: blob_ref(blobs / digest) for digest in digests},
        artifacts={item.digest: item for item in artifacts},
        ladders={PROFILE: tuple(_point(i, item) for i, item in enumerate(artifacts))},
    )
    path = folder / "manifest.json"
    path.write_bytes(encode(manifest))
    return DeviceRelease(manifest, path, blobs)


def with_filter(release: DeviceRelease, gain: float) -> DeviceRelease:
    """The same release with a filter before it that makes sounds louder or quieter."""
    artifact = write_filter(release.path.parent, release.blobs, gain)
    task = replace(
        release.manifest.task,
        enhance=Enhancement(spec=CLEANS, artifacts={artifact.runtime: artifact.digest}),
    )
    manifest = replace(
        release.manifest,
        task=task,
        artifacts=release.manifest.artifacts | {artifact.digest: artifact},
        blobs=release.manifest.blobs
        | {
            digest: blob_ref(release.blobs / digest)
            for digest in (artifact.digest, artifact.golden)
        },
    )
    release.path.write_bytes(encode(manifest))
    return DeviceRelease(manifest, release.path, release.blobs)


def write_filter(folder: Path, blobs: Path, gain: float) -> Artifact:
    """An enhancer whose factors are all ``gain``; what it remembers it leaves as it is."""
    model = folder / "filter.onnx"
    shapes = {"x": (1, 3, 1, CLEANS.bands), "s": (1, 1), "y": (1, 2, 1, CLEANS.bands), "t": (1, 1)}
    nodes = [
        helper.make_node("Slice", ["x", "first", "last", "axis"], ["two"]),
        helper.make_node("Mul", ["two", "nothing"], ["silent"]),
        helper.make_node("Add", ["silent", "gain"], ["y"]),
        helper.make_node("Identity", ["s"], ["t"]),
    ]
    constants = {
        "first": np.int64([0]),
        "last": np.int64([2]),
        "axis": np.int64([1]),
        "nothing": np.float32([0]),
        "gain": np.float32([gain, 0]).reshape(1, 2, 1, 1),
    }
    specs = _save(model, nodes, shapes, constants)
    chance = np.random.default_rng(0)
    return _described(blobs, model, specs, [chance.normal(size=(4, 3, 1, 128)), np.ones((4, 1))])


def _artifact(folder: Path, blobs: Path, threshold: float) -> Artifact:
    model = folder / "model.onnx"
    specs = _write(model, threshold)
    chance = np.random.default_rng(0)
    return _described(
        blobs, model, specs, [chance.normal(-6, 4, (4, BANDS, FRAMES)), chance.random((4, 1))]
    )


def _described(
    blobs: Path, model: Path, specs: tuple[TensorSpec, ...], inputs: list[np.ndarray]
) -> Artifact:
    digest = _store(blobs, model.read_bytes())
    rows = [array.astype(np.float32) for array in inputs]
    engine = open_engine(blobs / digest, format="onnx")
    found = [
        [np.array(answer) for answer in engine.run([array[i : i + 1] for array in rows])]
        for i in range(4)
    ]
    outputs = [np.concatenate([row[o] for row in found]) for o in range(2)]
    engine.close()
    packed = io.BytesIO()
    named = {f"input_{i}": array for i, array in enumerate(rows)}
    np.savez(packed, **named, **{f"output_{o}": array for o, array in enumerate(outputs)})
    return Artifact(
        digest=digest,
        format="onnx",
        runtime="onnxruntime",
        scheme="fp32",
        height_px=1,
        width_px=1,
        inputs=specs[:2],
        outputs=specs[2:],
        golden=_store(blobs, packed.getvalue()),
        tolerance={"onnxruntime": 1e-3},
        states=((1, 1),),
    )


def _write(path: Path, threshold: float) -> tuple[TensorSpec, ...]:
    """y = t = (s + sigmoid(4 (mean(x) - threshold))) / 2, ``s`` and ``t`` being the state."""
    shapes = {"x": (1, BANDS, FRAMES), "s": (1, 1), "y": (1, 1), "t": (1, 1)}
    values = {"threshold": threshold, "slope": 4.0, "half": 0.5}
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["mean", "threshold"], ["over"]),
        helper.make_node("Mul", ["over", "slope"], ["steep"]),
        helper.make_node("Sigmoid", ["steep"], ["now"]),
        helper.make_node("Add", ["s", "now"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["y"]),
        helper.make_node("Identity", ["y"], ["t"]),
    ]
    return _save(path, nodes, shapes, {name: np.float32([value]) for name, value in values.items()})


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    shapes: dict[str, tuple[int, ...]],
    constants: dict[str, np.ndarray],
) -> tuple[TensorSpec, ...]:
    """Write a file with two inputs and two outputs."""
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    save_onnx(path, nodes, infos[:2], infos[2:], kept)
    layouts: dict[int, Layout] = {2: "NC", 4: "NCHW"}
    return tuple(
        TensorSpec(name=name, dtype="float32", shape=shape, layout=layouts.get(len(shape), "other"))
        for name, shape in shapes.items()
    )


def _point(number: int, artifact: Artifact) -> OperatingPoint:
    return OperatingPoint(
        id=f"p{number}",
        artifact=artifact.digest,
        runtime="onnxruntime",
        scheme="fp32",
        channel_width=1.0,
        height_px=1,
        width_px=1,
        threads=1,
        accuracy=1.0,
        accuracy_drop=0.0,
        agreement=1.0,
        max_output_error=0.0,
        host_latency_ms=0.1,
    )


def _store(blobs: Path, data: bytes) -> str:
    digest = blob_ref(data).digest
    (blobs / digest).write_bytes(data)
    return digest
