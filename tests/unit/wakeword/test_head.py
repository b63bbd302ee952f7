"""A head on a published embedding: what training hears is what the device hears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from converters.foreign.openwake import read_openwake
from converters.wakeword.evaluate import Rule
from converters.wakeword.head_network import (
    WINDOWS,
    HeadNetwork,
    joined,
    score_embeddings,
    write_head,
)
from converters.wakeword.learn_head import HeadLessons, HeadPlan, learn_head
from edge_sdk.errors import ConversionError
from tests.fakes.foreign import write_openwake

RULE = Rule(cutoff=0.7, window_steps=2, refractory_s=1.5)


def head(seed: int = 0, spread: float = 0.3) -> HeadNetwork:
    torch.manual_seed(seed)
    return HeadNetwork(torch.randn(96) * 0.1, torch.full((96,), spread), 8, 0.2).eval()


def test_the_file_says_how_to_listen(tmp_path: Path) -> None:
    write_openwake(tmp_path)
    write_head(head(), tmp_path / "robin.onnx", "hey robin", RULE)
    (word,) = read_openwake(tmp_path / "robin.onnx", tmp_path).sound.words
    assert (word.label, word.cutoff, word.window_steps) == ("hey robin", 0.7, 2)
    assert word.refractory_s == 1.5
    model = onnx.load(str(tmp_path / "robin.onnx"))
    onnx.helper.set_model_props(model, {"edge_sdk.wakeword": '{"cutoff": 7}'})
    onnx.save(model, str(tmp_path / "odd.onnx"))
    with pytest.raises(ConversionError) as caught:
        read_openwake(tmp_path / "odd.onnx", tmp_path)
    assert caught.value.slug == "bad-wakeword"


def test_several_networks_are_one() -> None:
    networks = [head(seed) for seed in range(3)]
    x = torch.randn(5, WINDOWS, 96)
    networks = [same_beginning(network, networks[0]) for network in networks]
    expected = torch.stack([network(x) for network in networks]).mean(0)
    assert torch.allclose(joined(networks)(x), expected, atol=1e-5)


def same_beginning(network: HeadNetwork, other: HeadNetwork) -> HeadNetwork:
    network.mean.copy_(other.mean)
    network.deviation.copy_(other.deviation)
    return network


def test_a_phrase_is_learned_and_mistakes_are_found() -> None:
    chance = np.random.default_rng(0)

    def talk(steps: int) -> np.ndarray:
        return chance.standard_normal((steps, 96)).astype(np.float16)

    lessons = HeadLessons(others=[talk(40) for _ in range(40)], streams=[talk(2000)])
    for _ in range(60):
        rows = talk(40)
        rows[22:26, :8] += 3.0
        lessons.phrases.append((rows, 20, 26))
    told = []
    plan = HeadPlan(networks=2, steps=200, batch=64, learning_rate=1e-2, hidden=8, searches=1)
    network = learn_head(lessons, plan, told.append)
    assert [now.mistakes_per_hour is not None for now in told] == [True, False, True, False]
    rows = talk(60)
    rows[30:34, :8] += 3.0
    scores = score_embeddings(network, rows)
    assert scores[34:38].max() > 0.5 > np.concatenate((scores[:28], scores[52:])).max()
    assert told[-1].step == told[-1].steps == 400
    assert learn_head(lessons, HeadPlan(networks=1, steps=2, batch=16, hidden=4)).training is False


def test_lessons_without_hours_are_enough() -> None:
    rows = np.zeros((30, 96), np.float16)
    plan = HeadPlan(networks=1, steps=3, batch=16, hidden=4, searches=1)
    network = learn_head(HeadLessons(phrases=[(rows, 18, 22)]), plan)
    assert score_embeddings(network, rows).shape == (30,)
