"""A published embedding in PyTorch, and with the agent's own front end, is what it was at home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.foreign.caching import chained
from converters.foreign.chain_network import ChainNetwork, chain_network, described
from converters.foreign.embedding import FEATURES, SpeechEmbedding
from converters.foreign.openwake import read_openwake
from converters.wakeword.head_network import HeadNetwork, score_embeddings, write_head
from converters.wakeword.speech_network import speech_network
from edge_sdk.audio.features import FrontEnd
from edge_sdk.audio.samples import Floats
from edge_sdk.errors import ConversionError
from tests.fakes.foreign import write_openwake
from tests.unit.audio.test_features import noise
from tests.unit.converters.test_foreign_wakewords import scores_of
from tests.unit.wakeword.test_head import RULE

BANDS = 8
LAYERS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.sampled_from([1, 3]),
        st.sampled_from(["", "Relu", "LeakyRelu", "Bent"]),
        st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]),
    ),
    min_size=1,
    max_size=3,
)


def picture(layers: list[Any], seed: int, odd: str = "") -> tuple[onnx.GraphProto, int, int]:
    """A chain of layers, the frames that it sees, and how many of these are new each time."""
    chance, node = np.random.default_rng(seed), helper.make_node
    nodes, constants, channels, value = [], {}, 1, "x"
    for at, (frames, bands, bend, pool) in enumerate(layers):
        constants[f"w{at}"] = chance.normal(size=(4, channels, frames, bands)).astype(np.float32)
        constants[f"b{at}"] = chance.normal(size=4).astype(np.float32)
        pads = [0, bands // 2, 0, bands // 2]
        nodes.append(node("Conv", [value, f"w{at}", f"b{at}"], [f"c{at}"], pads=pads))
        value, channels = f"c{at}", 4
        if bend:
            kind = "LeakyRelu" if bend == "Bent" else bend
            slope: dict[str, Any] = {} if kind == "Relu" else {"alpha": 0.2}
            nodes.append(node(kind, [value], [f"l{at}"], **slope))
            value = f"l{at}"
        if bend == "Bent":
            constants["least"] = np.full((1, 1, 1, 1), -0.4, np.float32)
            nodes.append(node("Max", [value, "least"], [f"m{at}"]))
            value = f"m{at}"
        if pool != (1, 1):
            nodes.append(node("MaxPool", [value], [f"p{at}"], kernel_shape=pool, strides=pool))
            value = f"p{at}"
    if odd:
        nodes.append(node(odd, [value], ["odd"]))
        value = "odd"
    seen, new = 1, 1
    for frames, _, _, pool in reversed(layers):
        seen, new = seen * pool[0] + frames - 1, new * pool[0]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, seen, BANDS])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, channels, 1, "b"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return graph, seen, new


@settings(max_examples=40, deadline=None)
@given(layers=LAYERS, seed=st.integers(0, 9))
def test_a_chain_gives_what_the_file_gives_step_by_step(layers: list[Any], seed: int) -> None:
    graph, seen, new = picture([*layers, (2, 1, "", (1, 1))], seed)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    network = network_of(graph, seen, new)
    assert network is not None
    warm = -(-seen // new)
    sound = np.random.default_rng(seed).normal(size=((warm + 3) * new, BANDS)).astype(np.float32)
    memories = [torch.zeros(shape) for shape in network.memories]
    for step in range(warm + 3):
        end = (step + 1) * new
        frames = torch.from_numpy(sound[None, None, end - new : end])
        with torch.no_grad():
            found, *memories = network(frames, *memories)
        if step >= warm:
            expected = session.run(None, {"x": sound[None, None, end - seen : end]})[0]
            assert np.allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def network_of(graph: onnx.GraphProto, seen: int, new: int) -> ChainNetwork | None:
    chain = chained(graph, seen, new, BANDS)
    layers = None if chain is None else described(graph, chain)
    return None if layers is None else chain_network(graph, layers, BANDS)


@pytest.mark.parametrize("odd", ["Softmax", "Clip", "Relu"])
def test_what_is_not_known_or_ends_otherwise_is_no_chain(odd: str) -> None:
    assert network_of(*picture([(2, 3, "Bent", (2, 2)), (1, 1, "", (1, 1))], 0)) is not None
    assert network_of(*picture([(2, 3, "Bent", (2, 2)), (1, 1, "", (1, 1))], 0, odd)) is None


def test_training_hears_what_openwakeword_hears(tmp_path: Path) -> None:
    write_openwake(tmp_path, convolutions=True)
    torch.manual_seed(0)
    network = HeadNetwork(torch.randn(96) * 0.1, torch.full((96,), 0.1), 8, 0.2).eval()
    write_head(network, tmp_path / "robin.onnx", "hey robin", RULE)
    sound = noise(5.0, level=0.2)
    sound *= 1.0 + 0.9 * np.sin(np.arange(len(sound)) / 1500, dtype=np.float32)
    found = score_embeddings(network, SpeechEmbedding(tmp_path).hear([sound[:9000], sound[9000:]]))
    # Their frames lie 56 samples later, and their first step hears 424 samples of silence more.
    late = np.concatenate((np.zeros(1280 - 424, np.float32), sound))
    expected = scores_of(read_openwake(tmp_path / "robin.onnx", tmp_path), tmp_path, late)[1:, 0]
    warm, count = 30, len(found)
    assert np.ptp(expected[warm:]) > 0.02, "the answers are not all the same"
    # Training keeps embeddings in half precision.
    assert np.abs(found[warm:] - expected[warm:count]).max() < 3e-3


def test_one_network_scores_as_embedding_and_head(tmp_path: Path) -> None:
    write_openwake(tmp_path, convolutions=True)
    torch.manual_seed(0)
    head = HeadNetwork(torch.randn(96) * 0.1, torch.full((96,), 0.1), 8, 0.2).eval()
    ear, sound = SpeechEmbedding(tmp_path), noise(3.0, level=0.2)
    network = speech_network(ear, head)
    expected = score_embeddings(head, ear.hear([sound]))
    frames = FrontEnd(FEATURES).push(sound)
    frames = frames[: len(frames) - len(frames) % 8]
    at_once = network.scores(frames)
    assert np.ptp(expected) > 0.02 and len(at_once) == len(expected)
    assert np.abs(at_once - expected).max() < 3e-3  # training keeps them in half precision
    states, found = network.states(1), []
    for step in torch.from_numpy(frames).reshape(-1, 1, 8, 32):
        with torch.no_grad():
            logit, *states = network(step, *states)
        found.append(torch.sigmoid(logit).item())
    assert np.allclose(found, at_once, atol=1e-5)


def test_the_embedding_does_not_depend_on_how_sound_was_cut(tmp_path: Path) -> None:
    write_openwake(tmp_path, convolutions=True)
    ear, sound = SpeechEmbedding(tmp_path), noise(2.0, level=0.1)
    whole = ear.hear([sound])
    assert whole.shape == (24, 96)
    assert ear.hear(list(np.array_split(sound, 7))).tobytes() == whole.tobytes()
    assert ear.hear([]).shape == (0, 96)


def test_files_that_the_agent_cannot_follow_are_refused(tmp_path: Path) -> None:
    write_openwake(tmp_path, convolutions=False)
    with pytest.raises(ConversionError, match="no chain"):
        SpeechEmbedding(tmp_path)
    write_openwake(tmp_path, convolutions=True)
    path = tmp_path / "melspectrogram.onnx"
    oddities = {"other bands": lambda bands: bands[:, ::-1], "gives": lambda bands: bands[:, :8]}
    for words, odd in oddities.items():
        write_openwake(tmp_path, convolutions=True)
        rewrite(path, "bands", odd)
        with pytest.raises(ConversionError, match=words) as caught:
            SpeechEmbedding(tmp_path)
        assert caught.value.slug == "bad-wakeword"


def rewrite(path: Path, name: str, change: Any) -> None:
    model = onnx.load(str(path))
    (tensor,) = (item for item in model.graph.initializer if item.name == name)
    changed: Floats = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(changed, name))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(model, str(path))
