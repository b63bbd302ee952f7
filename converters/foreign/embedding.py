"""A published embedding of speech over hours of sound, as the device computes it step by step.

The two files are those that openWakeWord shares between words: sound to mel bands, and these to 96
numbers every 80 ms, learned by Google on recordings of many people ("speech_embedding", Apache
licence 2.0; Lin et al. 2020, "Training keyword spotters with limited and synthesized speech data").
The bands are those of the agent's own front end in other units, which :func:`hearing` finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from converters.foreign.caching import FIRST, Chain, chained
from converters.foreign.chain_network import ChainNetwork, chain_network, described
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
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import FeatureSpec
from edge_sdk.errors import ConversionError

FEATURES: Final = FeatureSpec(
    kind="slaney",
    bands=BANDS,
    low_hz=60.0,
    high_hz=3800.0,
    compression="log",
    floor=1e-9,  # a little above what rounding to 16 bits leaves of silence
)
"""What the embedding hears, in the agent's words."""
_STEPS: Final = 250
"""At once, 20 s: more would take memory and save no time."""
_PROOF_STEPS: Final = 25
_MOST_ODD: Final = 0.02
"""Root mean square of what units cannot explain, in the file's units of 10 dB."""
_LATE: Final = 3
"""The file's first step begins with so many frames that hear the silence before, """
_PADDED: Final = (FeatureSpec().fft_samples - FEATURES.window_samples) // 2
"""and its window lies in the middle of the transform."""


@dataclass(frozen=True, slots=True)
class Units:
    """The embedding's frames are ``gain`` times ours, plus ``bias`` by band."""

    gain: float
    bias: Floats

    def of(self, frames: Floats) -> Floats:
        """Frames (T, 32) of the front end as the embedding wants them."""
        found: Floats = frames * np.float32(self.gain) + self.bias
        return found


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
        self.units = hearing(folder / MELS)
        self.picture = load_part(folder / EMBEDDING)
        chain = chained(self.picture.graph, SEEN, NEW, BANDS)
        layers = None if chain is None else described(self.picture.graph, chain)
        if chain is None or layers is None:
            raise _unlike(folder / EMBEDDING, "is no chain of convolutions as the published one")
        self.layers = layers
        self._memories = chain.memories
        self._embed = _session(_model(self.picture, chain))
        digests = f"{_digest(folder / MELS)} {_digest(folder / EMBEDDING)}"
        self.name = f"speech embedding {digests} heard {FEATURES}"

    def network(self) -> ChainNetwork:
        """The same in PyTorch, on the file's own frames."""
        return chain_network(self.picture.graph, self.layers, BANDS)

    def hear(self, sounds: Iterable[Floats]) -> npt.NDArray[np.float16]:
        """Embeddings (T, 96) of sounds (N,) at 16 kHz that follow on each other from silence."""
        front = FrontEnd(FEATURES)
        parts = [front.push(sound) for sound in sounds]
        frames = np.concatenate([np.zeros((0, BANDS), np.float32), *parts])
        return self.embed(frames[: len(frames) - len(frames) % NEW]).astype(np.float16)

    def embed(self, frames: Floats) -> Floats:
        """Embeddings (T, 96) of the front end's frames (8 T, 32), from the beginning."""
        memories = [np.zeros(shape, np.float32) for shape in self._memories]
        names = [item.name for item in self._embed.get_inputs()]
        found = [np.zeros((0, WIDTH), np.float32)]
        for first in range(0, len(frames), _STEPS * NEW):
            piece = self.units.of(frames[first : first + _STEPS * NEW])
            inputs = [piece[None, None], *memories]
            vectors, *memories = self._embed.run(None, dict(zip(names, inputs, strict=True)))
            found.append(vectors.reshape(WIDTH, -1).T)
        return np.concatenate(found)


def hearing(path: Path) -> Units:
    """How the file's mel bands follow from the front end's.

    Both hear the same noise at many levels; least squares draw a line for each band, all as steep.

    Raises:
        ConversionError: ``conversion.bad-wakeword`` where the bands are others.
    """
    session = _session(load_part(path))
    sound = _proof()
    late = sound[_PADDED:]
    ours = FrontEnd(FEATURES).push(late).astype(np.float64)
    theirs = _frames(session, path, sound)[_LATE:].astype(np.float64)
    count = min(len(ours), len(theirs))
    ours, theirs = ours[:count], theirs[:count]
    middle, centre = ours.mean(axis=0), theirs.mean(axis=0)
    gain = float(((ours - middle) * (theirs - centre)).sum() / np.square(ours - middle).sum())
    units = Units(gain, (centre - gain * middle).astype(np.float32))
    odd = float(np.sqrt(np.square(units.of(ours.astype(np.float32)) - theirs).mean()))
    if not odd <= _MOST_ODD:
        raise _unlike(path, f"hears other bands than the agent would (by {10 * odd:.2g} dB)")
    return units


def _proof() -> Floats:
    """Two seconds of noise, from loud to quiet and back."""
    size = _PROOF_STEPS * STEP_SAMPLES
    swell = 10.0 ** (-1.5 + np.cos(np.linspace(0.0, 2.0 * np.pi, size)))
    noise: Floats = (swell * np.random.default_rng(0).uniform(-1, 1, size)).astype(np.float32)
    return noise


def _frames(session: Any, path: Path, sound: Floats) -> Floats:
    """Mel bands (8 T, 32) as openWakeWord takes them from the file, step by step."""
    padded = np.concatenate([np.zeros(BEFORE, np.float32), sound]) * np.float32(FULL_SCALE)
    name, found = session.get_inputs()[0].name, []
    for first in range(0, len(sound), STEP_SAMPLES):
        piece = padded[None, first : first + BEFORE + STEP_SAMPLES]
        (answer,) = session.run(None, {name: piece})
        if np.size(answer) != NEW * BANDS:
            raise _unlike(path, f"gives {np.shape(answer)} for 110 ms of sound")
        found.append(np.asarray(answer, np.float32).reshape(NEW, BANDS))
    frames: Floats = np.concatenate(found) / np.float32(10) + np.float32(2)
    return frames


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


def _unlike(path: Path, what: str) -> ConversionError:
    return ConversionError(
        "bad-wakeword",
        f"{path} {what}.",
        f"Give the folder with openWakeWord's {MELS} and {EMBEDDING} (docs/wakeword.md).",
    )
