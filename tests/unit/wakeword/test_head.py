"""A head on a published embedding: what training hears is what the device hears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from converters.foreign.openwake import read_openwake
from converters.wakeword.augment import at_some_speed
from converters.wakeword.crossfit import answers_of_strangers, dealt
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

    lessons = HeadLessons(others=[talk(40) for _ in range(40)], streams={"home": [talk(2000)]})
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


def test_a_cutoff_is_chosen_by_networks_that_do_not_know_the_folder() -> None:
    chance = np.random.default_rng(0)
    phrase = np.zeros((40, 96), np.float16)
    phrase[22:26, :8] = 3.0

    def folder() -> np.ndarray:
        rows = chance.standard_normal((400, 96)).astype(np.float16)
        rows[200:204, :8] = 3.0  # says the phrase: whoever learned it here leaves it alone
        return rows

    streams = {name: [folder()] for name in "abc"}
    lessons = HeadLessons([(phrase, 20, 26)] * 40, [], streams, {"a": [folder()]})
    plan = HeadPlan(steps=120, batch=64, learning_rate=1e-2, hidden=8, searches=1, dropout=0.0)
    told = []
    found = answers_of_strangers(lessons, {"a": streams["a"]}, plan, lambda *now: told.append(now))
    assert [len(scores) for scores in found["a"]] == [400]
    assert {group for group, _ in told} == {("a",)}
    assert set(lessons.without(("a",)).streams) == {"b", "c"}
    assert lessons.without(("a",)).again == {}


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 1000), max_size=9))
@example({"a": 0, "b": 0, "c": 0})
def test_every_folder_is_left_out_once(sizes: dict[str, int]) -> None:
    groups = dealt(sizes)
    assert sorted(name for group in groups for name in group) == sorted(sizes)
    assert len(groups) == min(3, len(sizes))
    assert all(groups)


def test_a_clip_is_often_said_otherwise() -> None:
    chance = np.random.default_rng(1)
    lengths = np.array([len(at_some_speed(np.ones(1000, np.float32), chance)) for _ in range(400)])
    assert 80 < (lengths == 1000).sum() < 170
    assert 850 < np.quantile(lengths, 0.1) < 960 < 1040 < np.quantile(lengths, 0.9) < 1200


def test_lessons_without_hours_are_enough() -> None:
    rows = np.zeros((30, 96), np.float16)
    plan = HeadPlan(networks=1, steps=3, batch=16, hidden=4, searches=1)
    network = learn_head(HeadLessons(phrases=[(rows, 18, 22)]), plan)
    assert score_embeddings(network, rows).shape == (30,)
