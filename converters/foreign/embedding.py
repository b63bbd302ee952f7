"""A published embedding of speech over hours of sound, as the device computes it step by step.

The two files are those that openWakeWord shares between words: sound to mel bands, and these to 96
numbers every 80 ms, learned by Google on recordings of many people ("speech_embedding", Apache
licence 2.0; Lin et al. 2020, "Training keyword spotters with limited and synthesized speech data").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from converters.foreign.caching import FIRST, Chain, chained
from converters.foreign.openwake import (
    BANDS,
    BEFORE,
    EMBEDDING,
    FULL_SCALE,
    MELS,
    NEW,
    OPSET,
    SEEN,
    STEP_S,
    STEP_SAMPLES,
    WIDTH,
    constants_of,
    load_part,
)
from edge_sdk.audio.samples import Floats

_STEPS: Final = 250
"""At once, 20 s: more would take memory and save no time."""


class SpeechEmbedding:
    """Both files, loaded for many streams.

    Args:
        folder: where ``melspectrogram.onnx`` and ``embedding_model.onnx`` lie.

    Raises:
        ConversionError: ``conversion.bad-wakeword``.
    """

    width = WIDTH
    rows = 1
    step_s = STEP_S

    def __init__(self, folder: Path) -> None:
        self._mels = _session(load_part(folder / MELS))
        picture = load_part(folder / EMBEDDING)
        chain = chained(picture.graph, SEEN, NEW, BANDS)
        self._memories = None if chain is None else chain.memories
        self._embed = _session(picture if chain is None else _model(picture, chain))
        self.name = f"speech embedding {_digest(folder / MELS)} {_digest(folder / EMBEDDING)}"

    def hear(self, sounds: Iterable[Floats]) -> npt.NDArray[np.float16]:
        """Embeddings (T, 96) of sounds (N,) at 16 kHz that follow on each other from silence."""
        sound = np.concatenate([np.zeros(BEFORE, np.float32), *sounds]) * np.float32(FULL_SCALE)
        steps = (len(sound) - BEFORE) // STEP_SAMPLES
        if not steps:
            return np.zeros((0, WIDTH), np.float16)
        frames = np.concatenate([self._frames(sound, step) for step in range(steps)])
        found = self._looked_back(frames) if self._memories is None else self._looked_once(frames)
        return found.astype(np.float16)

    def _frames(self, sound: Floats, step: int) -> Floats:
        """Mel bands (8, 32); each step by itself, as its loudest band bounds the others."""
        first = step * STEP_SAMPLES
        piece = sound[None, first : first + BEFORE + STEP_SAMPLES]
        return _only(self._mels, piece).reshape(NEW, BANDS) / np.float32(10) + np.float32(2)

    def _looked_back(self, frames: Floats) -> Floats:
        padded = np.concatenate((np.zeros((SEEN - NEW, BANDS), np.float32), frames))
        found = [
            _only(self._embed, padded[None, end - SEEN : end, :, None]).reshape(1, WIDTH)
            for end in range(SEEN, len(padded) + 1, NEW)
        ]
        return np.concatenate(found)

    def _looked_once(self, frames: Floats) -> Floats:
        memories = [np.zeros(shape, np.float32) for shape in self._memories or ()]
        found = []
        for first in range(0, len(frames), _STEPS * NEW):
            inputs = [frames[None, None, first : first + _STEPS * NEW], *memories]
            names = [item.name for item in self._embed.get_inputs()]
            vectors, *memories = self._embed.run(None, dict(zip(names, inputs, strict=True)))
            found.append(vectors.reshape(WIDTH, -1).T)
        return np.concatenate(found)


def _model(picture: onnx.ModelProto, chain: Chain) -> onnx.ModelProto:
    """The chain on any number of new frames: (1, 1, 8 T, 32) and memories to (1, 96, T, 1)."""
    graph = picture.graph
    infos = [
        [
            helper.make_tensor_value_info(f"{end}_{FIRST + at}", TensorProto.FLOAT, shape)
            for at, shape in enumerate(chain.memories)
        ]
        for end in ("input", "output")
    ]
    taken = helper.make_tensor_value_info(
        graph.input[0].name, TensorProto.FLOAT, [1, 1, "frames", BANDS]
    )
    given = helper.make_tensor_value_info(
        graph.output[0].name, TensorProto.FLOAT, [1, WIDTH, "steps", "bands"]
    )
    made = helper.make_graph(
        chain.nodes,
        graph.name,
        [taken, *infos[0]],
        [given, *infos[1]],
        [*graph.initializer, *constants_of(chain.constants | {"end": [2**31 - 1]})],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opsets, ir_version=picture.ir_version)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _only(session: Any, array: Floats) -> Floats:
    (found,) = session.run(None, {session.get_inputs()[0].name: array})
    return np.asarray(found, np.float32)
