"""Pairs of small model files, written without an exporter: one changed into the other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.models import save_onnx, write_tflite

CHANNELS = (8, 16, 24)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Kernels and biases of a few convolutions, float32."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for layer, (inside, outside) in enumerate(itertools.pairwise((3, *CHANNELS))):
        found[f"w{layer}"] = random.normal(0, 0.2, (outside, inside, 3, 3)).astype(np.float32)
        found[f"b{layer}"] = random.normal(0, 0.1, outside).astype(np.float32)
    return found


def tuned(old: dict[str, np.ndarray], rate: float = 1e-3, seed: int = 1) -> dict[str, np.ndarray]:
    """Every weight moved a little."""
    random = np.random.default_rng(seed)
    return {
        name: (value + random.normal(0, rate, value.shape)).astype(np.float32)
        for name, value in old.items()
    }


def rescaled(old: dict[str, np.ndarray], seed: int = 1) -> dict[str, np.ndarray]:
    """Every channel times a factor, as folded normalisation does."""
    random = np.random.default_rng(seed)
    return {
        name: value * random.uniform(0.8, 1.2, (len(value), *[1] * (value.ndim - 1))).astype("f4")
        for name, value in old.items()
    }


def narrowed(old: dict[str, np.ndarray], seed: int = 1) -> dict[str, np.ndarray]:
    """Three quarters of each layer's channels."""
    random = np.random.default_rng(seed)
    kept = np.arange(3)
    found = {}
    for layer, channels in enumerate(CHANNELS):
        before, kept = kept, np.sort(random.permutation(channels)[: channels * 3 // 4])
        found[f"w{layer}"] = np.ascontiguousarray(old[f"w{layer}"][kept][:, before])
        found[f"b{layer}"] = old[f"b{layer}"][kept]
    return found


def onnx_file(path: Path, values: dict[str, np.ndarray], *, int8: bool = False) -> bytes:
    """A chain of convolutions; with ``int8`` its weights are quantized per channel."""
    nodes, stored, name = [], [], "x"
    for layer in range(len(CHANNELS)):
        weight, bias = values[f"w{layer}"], values[f"b{layer}"]
        wanted = f"w{layer}"
        if int8:
            scale = np.abs(weight).max((1, 2, 3)) / np.float32(127)
            whole = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
            stored += [
                numpy_helper.from_array(whole, f"w{layer}_q"),
                numpy_helper.from_array(scale.astype(np.float32), f"w{layer}_scale"),
                numpy_helper.from_array(np.zeros(len(scale), np.int8), f"w{layer}_zero"),
            ]
            inputs = [f"w{layer}_q", f"w{layer}_scale", f"w{layer}_zero"]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [wanted], axis=0))
        else:
            stored.append(numpy_helper.from_array(weight, wanted))
        stored.append(numpy_helper.from_array(bias, f"b{layer}"))
        out = "y" if layer == len(CHANNELS) - 1 else f"c{layer}"
        nodes.append(helper.make_node("Conv", [name, wanted, f"b{layer}"], [out], pads=[1] * 4))
        name = out
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, size, 8, 8])
        for end, size in (("x", 3), ("y", len(values[f"b{len(CHANNELS) - 1}"])))
    ]
    save_onnx(path, nodes, ends[:1], ends[1:], stored)
    return path.read_bytes()


def tflite_file(path: Path, rate: float = 0.0) -> bytes:
    """One convolution whose kernel was moved by so much."""
    write_tflite(path, shape=(1, 8, 8, 24), operator="CONV_2D", seed=3)
    data = bytearray(path.read_bytes())
    kernel = np.random.default_rng(3).normal(size=(24, 3, 3, 24)).astype(np.float32)
    at = bytes(data).index(kernel.tobytes())
    kernel += np.random.default_rng(4).normal(0, rate, kernel.shape).astype(np.float32)
    data[at : at + kernel.nbytes] = kernel.tobytes()
    return bytes(data)
