"""Wake words of other projects give the scores that they give at home."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pipelines.listening import Listening
from agent.sound.ring import Heard
from converters.foreign.listens import Listens
from converters.foreign.micro import read_micro
from converters.foreign.openwake import read_openwake
from converters.foreign.run import import_wakeword
from converters.foreign.variables import without_variables
from converters.importing.run import ImportOptions
from edge_sdk.audio.samples import Floats
from edge_sdk.errors import ConversionError
from edge_sdk.runtime.negotiate import open_engine
from edge_sdk.runtime.stream import StreamSession
from tests.fakes.foreign import STEP, write_micro, write_openwake
from tests.unit.audio.test_features import noise


def scores_of(listens: Listens, folder: Path, sound: Floats) -> Floats:
    """What the agent makes of a sound with it, (steps, labels)."""
    path = folder / f"network.{listens.format}"
    path.write_bytes(listens.data)
    engine = open_engine(path, format=listens.format)
    session = StreamSession(engine, engine.inputs, engine.outputs, listens.states)
    listening = Listening(session, listens.sound)
    steps = listening.push(Heard(sound, 0, True))
    listening.close()
    return np.stack([step.scores for step in steps])


def test_variables_become_states_without_a_bit_of_difference(tmp_path: Path) -> None:
    model = write_micro(tmp_path).with_suffix(".tflite")
    rewritten = without_variables(model)
    assert rewritten.states == ((1, 1),)
    before, after = Interpreter(str(model)), Interpreter(model_content=rewritten.data)
    before.allocate_tensors()
    after.allocate_tensors()
    taken, given_ = after.get_input_details(), after.get_output_details()
    chance, memory = np.random.default_rng(0), np.zeros(taken[1]["shape"], np.float32)
    for _ in range(50):
        x = chance.normal(size=STEP).astype(np.float32)
        before.set_tensor(before.get_input_details()[0]["index"], x)
        before.invoke()
        after.set_tensor(taken[0]["index"], x)
        after.set_tensor(taken[1]["index"], memory)
        after.invoke()
        memory = after.get_tensor(given_[1]["index"])
        expected = before.get_tensor(before.get_output_details()[0]["index"])
        assert after.get_tensor(given_[0]["index"]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("odd", [{"begin": 1.0}, {"swap": True}])
def test_variables_that_states_cannot_stand_for_are_refused(
    tmp_path: Path, odd: dict[str, Any]
) -> None:
    with pytest.raises(ConversionError) as caught:
        without_variables(write_micro(tmp_path, **odd).with_suffix(".tflite"))
    assert caught.value.slug == "hidden-state"


def test_what_is_no_tflite_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.tflite"
    for content in (b"", b"nothing of the kind", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ConversionError):
            without_variables(path)


def test_a_manifest_says_how_its_word_is_heard(tmp_path: Path) -> None:
    sound = read_micro(write_micro(tmp_path)).sound
    (word,) = sound.words
    assert (word.label, word.cutoff, word.window_steps) == ("Hey Robin", 0.6, 4)
    assert (sound.features.kind, sound.frames_per_step, sound.order) == (
        *("micro", 3, "frames-bands"),
    )


@pytest.mark.parametrize(
    "settings_",
    [
        {"version": 1},
        {"type": "nano"},
        {"feature_step_size": 20},
        {"probability_cutoff": 1.5},
        {"model": "../robin.tflite"},
        {"model": "absent.tflite"},
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    tmp_path: Path, settings_: dict[str, Any]
) -> None:
    with pytest.raises(ConversionError):
        read_micro(write_micro(tmp_path, **settings_))


@settings(max_examples=30, deadline=None)
@given(
    content=st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.just("micro"),
        lambda inner: st.dictionaries(
            st.sampled_from(["type", "wake_word", "model", "version", "micro"]), inner
        ),
        max_leaves=6,
    )
)
def test_any_json_is_refused_in_words(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.json"
        path.write_text(json.dumps(content))
        with pytest.raises(ConversionError) as caught:
            read_micro(path)
    assert caught.value.slug == "bad-wakeword"


@pytest.mark.parametrize("convolutions", [False, True])
def test_three_files_in_a_row_are_one_streaming_network(tmp_path: Path, convolutions: bool) -> None:
    word = write_openwake(tmp_path, convolutions=convolutions)
    sound = np.rint(noise(4.0, level=0.2) * 2**15).astype(np.float32) / np.float32(2**15)
    listens = read_openwake(word, tmp_path)
    assert len(listens.states) == (6 if convolutions else 3), "layers remember by themselves"
    found = scores_of(listens, tmp_path, sound)
    expected = offline(word, sound)
    assert len(found) == len(expected) == len(sound) // 1280
    warm = 30  # 76 frames and 16 embeddings: before, it depends on what one takes silence for
    assert np.abs(found[warm:] - expected[warm:]).max() < 1e-5
    assert np.ptp(expected[warm:]) > 0.01, "the answers are not all the same"


def offline(word: Path, sound: Floats) -> Floats:
    """openWakeWord's own way, by its three files."""
    names = (word.with_name("melspectrogram.onnx"), word.with_name("embedding_model.onnx"), word)
    mels, embed, score = (_runner(path) for path in names)
    frames, vectors = np.zeros((76, 32), np.float32), np.zeros((16, 96), np.float32)
    padded, found = np.concatenate((np.zeros(480, np.float32), sound * 2**15)), []
    for end in range(1760, len(padded) + 1, 1280):
        new = mels(padded[None, end - 1760 : end])[0, 0] / 10 + 2
        frames = np.concatenate((frames, new))[-76:]
        vectors = np.concatenate((vectors, embed(frames[None, :, :, None])[0, 0]))[-16:]
        found.append(score(vectors[None])[0])
    return np.stack(found)


def _runner(path: Path) -> Callable[[Floats], Floats]:
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array.astype(np.float32)})[0]


def test_labels_go_with_scores(tmp_path: Path) -> None:
    word = write_openwake(tmp_path, windows=34, scores=2)
    with pytest.raises(ConversionError) as caught:
        read_openwake(word, tmp_path)
    assert caught.value.slug == "bad-wakeword"
    sound = read_openwake(word, tmp_path, ("stop", "go on")).sound
    assert [word.label for word in sound.words] == ["stop", "go on"]
    assert read_openwake(write_openwake(tmp_path), tmp_path).sound.labels == ("hey robin",)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    word = write_openwake(tmp_path)
    with pytest.raises(ConversionError):
        read_openwake(tmp_path / "melspectrogram.onnx", tmp_path)
    with pytest.raises(ConversionError):
        read_openwake(word, tmp_path / "nowhere")
    (tmp_path / "embedding_model.onnx").write_bytes(b"nothing")
    with pytest.raises(ConversionError):
        read_openwake(word, tmp_path)


def test_an_imported_word_is_a_release_that_listens(tmp_path: Path) -> None:
    listens = read_openwake(write_openwake(tmp_path, convolutions=True), tmp_path)
    options = ImportOptions(schemes=("wfp16",))
    imported = import_wakeword(listens, ["x86-generic"], tmp_path / "out", options=options)
    conversion = imported.outcome.conversion
    assert conversion.task.sound == listens.sound
    pairs = tuple((at, at) for at in range(1, 7))
    assert {item.states for item in conversion.artifacts.values()} == {pairs}
    assert all("-1x16-" in name for name in conversion.files.values()), "states are no pictures"


def test_a_published_micro_word_scores_as_its_own_package_says(tmp_path: Path) -> None:
    package = pytest.importorskip("pymicro_wakeword", reason="needs pymicro-wakeword")
    pytest.importorskip("pymicro_features", reason="needs pymicro-features")
    models = Path(package.__file__).parent / "models"
    sound = np.clip(noise(3.0, level=0.3), -1, 1)
    data = np.rint(sound * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()
    heard = 0.0
    for name in ("okay_nabu", "hey_mycroft"):
        listens = read_micro(models / f"{name}.json")
        window = listens.sound.words[0].window_steps
        peer = package.MicroWakeWord.from_config(models / f"{name}.json")
        expected = [
            peer.process_streaming_prob(frame)
            for frame in package.MicroWakeWordFeatures().process_streaming(data)
        ][2::3]
        found = scores_of(listens, tmp_path, sound)[:, 0]
        assert len(found) == len(expected)
        means = [np.mean(found[at - window + 1 : at + 1]) for at in range(window - 1, len(found))]
        # The package brings a runtime without XNNPACK, whose int8 may differ by one step.
        assert np.allclose(means, expected[window - 1 :], atol=1.01 / 256)
        heard = max(heard, float(found.max()))
    assert heard > 0, "one of them hears something"


def test_a_published_open_word_scores_as_its_own_package_says(tmp_path: Path) -> None:
    package = pytest.importorskip("openwakeword", reason="needs openwakeword 0.5.1")
    models = Path(package.__file__).parent / "resources" / "models"
    word = models / "hey_jarvis_v0.1.onnx"
    if not word.exists():
        pytest.skip("this version of openwakeword ships no models")
    from openwakeword.model import Model

    peer = Model(
        wakeword_models=[str(word)],
        inference_framework="onnx",
        melspec_model_path=str(models / "melspectrogram.onnx"),
        embedding_model_path=str(models / "embedding_model.onnx"),
    )
    sound = np.rint(noise(5.0, level=0.1) * 2**15).astype(np.int16)
    expected = [
        next(iter(peer.predict(sound[at : at + 1280]).values()))
        for at in range(0, len(sound) - 1279, 1280)
    ]
    found = scores_of(read_openwake(word, models), tmp_path, sound / np.float32(2**15))[:, 0]
    assert np.allclose(found[30:], expected[30:], atol=1e-6)
