"""What listens in ``benchmarks/wakeword.py``: our network, its files, and the peers' packages.

Every system gives one score per 20 ms of sound, so that one counting serves all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.listening import release_of
from converters.wakeword.learn import score_stream
from converters.wakeword.network import STEP_S, STRIDE, Step, WakeNetwork
from converters.wakeword.task import WEIGHTS, read_about
from converters.wakeword.trial import stream_features
from edge_sdk.audio.samples import Floats
from edge_sdk.runtime.stream import StreamSession

RATE_HZ = 16000
STEP = round(STEP_S * RATE_HZ)
Listener = Callable[[Floats], Floats]
"""Sound (N,) at 16 kHz to scores (N // 320,)."""


def in_pytorch(folder: Path) -> Listener:
    """The float network as it was trained."""
    network = WakeNetwork(read_about(folder).shape)
    step = Step(network)
    step.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    step.eval()
    return lambda sound: score_stream(network, stream_features([sound]))


@contextmanager
def on_device(folder: Path, scheme: str) -> Iterator[Listener]:
    """A TFLite file of the conversion, step by step as the agent runs it."""
    with tempfile.TemporaryDirectory() as scratch:
        points = release_of(folder / "converted", Path(scratch)).points()
        index = next(i for i, point in enumerate(points.points) if point.scheme == scheme)
        _, artifact, engine = points.open(index)
        session = StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states)

        def listen(sound: Floats) -> Floats:
            session.reset()
            stream = stream_features([sound]).astype(np.float32)
            found = np.zeros(len(stream) // STRIDE, np.float32)
            for number in range(len(found)):
                frames = stream[STRIDE * number : STRIDE * (number + 1)].T[None]
                found[number] = float(np.ravel(session.step([frames])[0])[0])
            return (1.0 / (1.0 + np.exp(-found))).astype(np.float32)

        yield listen
        session.close()


def micro_wake_word(model: str) -> Listener:
    """microWakeWord's own model and package; its scores are already means over its window."""
    from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures, Model

    word = MicroWakeWord.from_builtin(Model(model))

    def listen(sound: Floats) -> Floats:
        word.reset()
        front = MicroWakeWordFeatures()
        scores = [
            word.process_streaming_prob(frame) or 0.0
            for frame in front.process_streaming(_bytes(sound))
        ]
        return _held(scores, 0.01, len(sound) // STEP)

    return listen


def open_wake_word(model: str) -> Listener:
    """openWakeWord's own model, embedding and package."""
    from pyopen_wakeword import Model, OpenWakeWord, OpenWakeWordFeatures

    word: Any = OpenWakeWord.from_builtin(Model(model))
    front: Any = OpenWakeWordFeatures.from_builtin()
    chunk, silence = 1280, 30

    def listen(sound: Floats) -> Floats:
        front.reset()
        word.reset()
        # It begins with eight seconds of silence, which costs more than a recording; the two that
        # its windows look back on do.
        front.new_audio_samples = 0
        padded = np.concatenate((np.zeros(silence * chunk, np.float32), sound))
        scores = []
        for first in range(0, len(padded) - chunk + 1, chunk):
            found = [
                score
                for embedding in front.process_streaming(_bytes(padded[first : first + chunk]))
                for score in word.process_streaming(embedding)
            ]
            scores.append(found[-1] if found else 0.0)
        return _held(scores[silence:], chunk / RATE_HZ, len(sound) // STEP)

    return listen


def _bytes(sound: Floats) -> bytes:
    return bytes(np.rint(np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())


def _held(scores: list[float], hop_s: float, count: int) -> Floats:
    """Scores on our grid: each holds until the next one, none before the first."""
    found = np.asarray([0.0, *scores], np.float32)
    ends = (np.arange(count) + 1) * STEP_S
    return found[np.minimum((ends / hop_s + 1e-6).astype(np.int64), len(found) - 1)]
