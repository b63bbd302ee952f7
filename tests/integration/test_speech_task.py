"""A head on a published embedding becomes a file of integers that listens like PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.pipelines.listening import Listening
from agent.sound.ring import Heard
from converters.convert import Options, convert
from converters.foreign.embedding import SpeechEmbedding
from converters.inspect import inspect_model
from converters.wakeword.evaluate import Rule
from converters.wakeword.head_network import HeadNetwork
from converters.wakeword.speech_network import SpeechNetwork, speech_network
from converters.wakeword.speech_task import MIXED, SpeechAbout, SpeechTask, some_streams
from converters.wakeword.task import ABOUT, SAMPLES, write_task
from edge_sdk.audio.features import features
from edge_sdk.audio.samples import Floats
from edge_sdk.bundle.release import read_conversion
from edge_sdk.errors import TaskError
from edge_sdk.runtime.negotiate import open_engine
from edge_sdk.runtime.stream import StreamSession
from tests.fakes.foreign import write_openwake
from tests.unit.audio.test_features import noise


@pytest.fixture(scope="module")
def sound() -> Floats:
    """Noise that comes and goes."""
    found = noise(24.0, level=0.3)
    return found * np.exp(2.0 * np.sin(np.arange(len(found)) / 900.0) - 2.0).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, sound: Floats) -> tuple[Path, SpeechNetwork]:
    folder = tmp_path_factory.mktemp("robin")
    write_openwake(folder, convolutions=True)
    ear = SpeechEmbedding(folder)
    rows = torch.from_numpy(ear.hear([sound])).float()
    torch.manual_seed(0)
    network = speech_network(ear, HeadNetwork(rows.mean(0), rows.std(0) + 1e-3, 16, 0.0).eval())
    streams = some_streams([sound], 5)
    about = SpeechAbout("robin", "hey robin", Rule(0.5, 2), ear.layers, 16)
    samples = {"calibration": streams[:3], "evaluation": streams[3:]}
    write_task(folder, SpeechTask, about, network, samples)
    return folder, network


def test_integers_listen_like_pytorch(
    written: tuple[Path, SpeechNetwork], sound: Floats, tmp_path: Path
) -> None:
    folder, network = written
    out = tmp_path / "out"
    options = Options(
        weights=folder / "weights.pt", formats=("tflite",), schemes=("static_wi8_ai8", MIXED)
    )
    convert(f"{folder / 'task.py'}:Task", ["rpi4"], out, options=options)
    frames = features(sound, SpeechTask.features)
    expected = network.scores(frames[: len(frames) - len(frames) % 8])
    assert np.ptp(expected) > 0.02
    for scheme, share in (("static_wi8_ai8", 0.3), (MIXED, 0.08)):
        found = scores_of_scheme(out, scheme, sound)
        assert len(found) == len(expected)
        assert np.abs(found - expected).max() < share * np.ptp(expected), scheme
    (mixed,) = out.glob(f"artifacts/*{MIXED}*")
    weights = {layer.op: layer.weight_dtype for layer in inspect_model(mixed).layers}
    assert weights["CONV_2D"] == "float32" and weights["FULLY_CONNECTED"] == "int8"


def scores_of_scheme(folder: Path, scheme: str, sound: Floats) -> Floats:
    """What the agent makes of the sound."""
    found = read_conversion(folder)
    (digest,) = (key for key, item in found.artifacts.items() if item.scheme == scheme)
    artifact, info = found.artifacts[digest], found.task.sound
    assert info is not None and (info.features.kind, info.frames_per_step) == ("slaney", 8)
    engine = open_engine(folder / found.files[digest], format="tflite")
    session = StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states)
    listening = Listening(session, info)
    steps = listening.push(Heard(sound, 0, True))
    listening.close()
    return np.array([step.scores[0] for step in steps])


@pytest.mark.parametrize("name", [ABOUT, SAMPLES])
def test_a_folder_that_was_changed_is_refused(
    written: tuple[Path, SpeechNetwork], name: str
) -> None:
    class Changed(SpeechTask):
        folder = written[0]

    path = written[0] / name
    before = path.read_bytes()
    odd = [b"", b"{}", before[: len(before) // 2]]
    if name == ABOUT:
        odd += [before.replace(b'"bands": 3', b'"bands": 0'), before.replace(b'"layers"', b'"x"')]
    try:
        for content in odd:
            path.write_bytes(content)
            with pytest.raises(TaskError) as caught:
                list(Changed().calibration(1, 1))
            assert caught.value.slug == "bad-wakeword"
    finally:
        path.write_bytes(before)
