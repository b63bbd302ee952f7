"""How the converters' benchmark compares two files: in turns, and image by image."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from benchmarks.clothing import PHOTOGRAPHS, shifted
from benchmarks.side_by_side import Pair, in_turns, paired, ratio


def pair(plain_only: int, ours_only: int, images: int = 1000) -> Pair:
    return Pair(images, plain_only, ours_only, 1.0, 1.0)


@given(st.integers(0, 9), st.integers(0, 9))
def test_chance_is_that_of_a_fair_coin(plain_only: int, ours_only: int) -> None:
    """Counted over every sequence of tosses."""
    tosses = list(product((0, 1), repeat=min(plain_only + ours_only, 10)))
    if plain_only + ours_only <= 10:
        as_many = sum(sum(row) >= plain_only for row in tosses)
        assert pair(plain_only, ours_only).chance == pytest.approx(as_many / len(tosses))
    assert 0 < pair(plain_only, ours_only).chance <= 1


def test_one_image_is_an_accident_and_many_are_not() -> None:
    assert pair(1, 0, 713).gap_pt == pytest.approx(0.14, abs=0.01)
    assert pair(1, 0, 713).chance == 0.5
    assert pair(30, 5).chance < 0.001 and pair(5, 30).chance > 0.99


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=30))
def test_pairs_count_what_the_accuracies_say(rows: list[tuple[int, int, int, int]]) -> None:
    plain, ours, truth, net = np.array(rows).T
    found = paired(plain, ours, truth, net)
    gap = float(np.mean(plain == truth) - np.mean(ours == truth)) * 100
    assert found.gap_pt == pytest.approx(gap)
    assert found.ours_agree == np.mean(ours == net)
    assert found.as_dict()["chance"] == found.chance


def test_files_take_turns(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    times = in_turns({"one": path, "same": path}, "onnx", 4)
    assert {name: len(values) for name, values in times.items()} == {"one": 4, "same": 4}
    assert all((values > 0).all() for values in times.values())
    assert ratio(times, "one", "one") == 1.0


def test_every_image_is_seen_at_four_positions() -> None:
    if not PHOTOGRAPHS.is_dir():
        pytest.importorskip("sklearn")
    images, labels = shifted(32)
    count = len(labels) // 4
    assert images.shape == (4 * count, 3, 32, 32) and images.dtype == np.float32
    assert np.array_equal(labels[:count], labels[count : 2 * count])
    assert not np.array_equal(images[:count], images[count : 2 * count])
    assert np.array_equal(np.roll(images[:count], 3, axis=2), images[count : 2 * count])
