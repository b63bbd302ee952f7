"""What listens in ``benchmarks/wakeword.py``: our network, its files, and the peers' packages.

Every system gives one score per 20 ms of sound, so that one counting serves all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.pipelines.listening import Listening
from agent.sound.ring import Heard
from converters.foreign.embedding import FEATURES as SPEECH
from converters.foreign.openwake import NEW, read_openwake
from converters.loading import load_task
from converters.module import build_module
from converters.wakeword.ears import BANDS
from converters.wakeword.learn import score_stream
from converters.wakeword.network import STEP_S
from converters.wakeword.speech_network import SpeechNetwork
from converters.wakeword.task import TASK, WEIGHTS
from edge_sdk.audio.features import features
from edge_sdk.audio.samples import Floats
from edge_sdk.bundle.release import read_conversion
from edge_sdk.runtime.negotiate import open_engine
from edge_sdk.runtime.stream import StreamSession

RATE_HZ = 16000
STEP = round(STEP_S * RATE_HZ)
Listener = Callable[[Floats], Floats]
"""Sound (N,) at 16 kHz to scores (N // 320,)."""


def in_pytorch(folder: Path) -> Listener:
    """The float network as it was trained."""
    task = load_task(f"{folder / TASK}:Task")
    network = build_module(task, folder / WEIGHTS)
    if isinstance(network, SpeechNetwork):
        return lambda sound: _on_speech(network, sound)
    return lambda sound: score_stream(network.network, BANDS.hear([sound]))


def _on_speech(network: SpeechNetwork, sound: Floats) -> Floats:
    frames = features(sound, SPEECH)
    scores = network.scores(frames[: len(frames) - len(frames) % NEW])
    hop, first = NEW * SPEECH.hop_samples, SPEECH.window_samples - SPEECH.hop_samples
    return _on_grid(scores, first + hop * (1 + np.arange(len(scores))), sound)


def on_device(folder: Path, form: str, scheme: str) -> Listener:
    """A file of the conversion, step by step as the agent runs it."""
    converted = folder / "converted"
    found = read_conversion(converted)
    digest, artifact = next(
        (digest, item)
        for digest, item in found.artifacts.items()
        if item.format == form and Path(found.files[digest]).stem.endswith(f"-{scheme}")
    )
    engine = open_engine(converted / found.files[digest], format=artifact.format)
    session = StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states)
    sound = found.task.sound
    if sound is None:
        raise ValueError(f"{converted} does not listen")
    return _listening(Listening(session, sound))


def imported(head: Path, folder: Path) -> Listener:
    """A published openWakeWord through the adapter; a test holds it to its own package's scores."""
    listens = read_openwake(head, folder)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "network.onnx"
        path.write_bytes(listens.data)
        engine = open_engine(path, format="onnx")
    session = StreamSession(engine, engine.inputs, engine.outputs, listens.states)
    return _listening(Listening(session, listens.sound))


def _listening(listening: Listening) -> Listener:
    def listen(sound: Floats) -> Floats:
        listening.reset()
        steps = listening.push(Heard(sound, 0, True))
        scores = np.asarray([step.scores[0] for step in steps], np.float32)
        return _on_grid(scores, np.asarray([step.end for step in steps], np.int64), sound)

    return listen


def _on_grid(scores: Floats, ends: np.ndarray, sound: Floats) -> Floats:
    """Scores on our grid: each holds until the next one, none before the first."""
    grid = (np.arange(len(sound) // STEP) + 1) * STEP
    after = np.concatenate((np.zeros(1, np.float32), scores))
    return after[np.searchsorted(ends, grid, side="right")]


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


def _bytes(sound: Floats) -> bytes:
    return bytes(np.rint(np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes())


def _held(scores: list[float], hop_s: float, count: int) -> Floats:
    """Scores on our grid: each holds until the next one, none before the first."""
    found = np.asarray([0.0, *scores], np.float32)
    ends = (np.arange(count) + 1) * STEP_S
    return found[np.minimum((ends / hop_s + 1e-6).astype(np.int64), len(found) - 1)]
