"""Keeping the int8 grid of an earlier conversion: smaller deltas, judged by accuracy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from converters.convert import Options, Outcome, convert
from converters.friendly import STAY, keep_grid, make_friendly
from edge_sdk.bundle.release import read_conversion
from edge_sdk.delta.find import DeltaBase
from edge_sdk.errors import ContractError
from tests.fakes.model_pairs import CHANNELS, onnx_file, rescaled, tuned, weights

INT8 = "static_wi8_ai8"


def constants(path: Path) -> dict[str, np.ndarray]:
    return {
        each.name: numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer
    }


@pytest.mark.parametrize("gain", [False, True], ids=["tuned", "with other gains"])
def test_weights_stay_where_they_hardly_moved(tmp_path: Path, gain: bool) -> None:
    moved = tuned(rescaled(weights()) if gain else weights(), 5e-4)
    old = onnx_file(tmp_path / "old.onnx", weights(), int8=True)
    path = tmp_path / "new.onnx"
    new = onnx_file(path, moved, int8=True)
    kept = keep_grid(old, new, path)
    assert kept is not None
    assert len(kept) == len(new)
    base = DeltaBase(old)
    before, after = base.delta(new), base.delta(kept)
    assert before is not None and after is not None
    assert len(after) < 0.8 * len(before)
    path.write_bytes(kept)
    onnx.checker.check_model(onnx.load(str(path)))
    found = constants(path)
    for layer in range(len(CHANNELS)):
        scale = found[f"w{layer}_scale"][:, None, None, None]
        off = np.abs(found[f"w{layer}_q"] * scale - moved[f"w{layer}"]) / scale
        assert off.max() <= STAY + 1.0, "of the step, and of the first rounding"


def test_another_architecture_has_no_grid_to_keep(tmp_path: Path) -> None:
    old = onnx_file(tmp_path / "old.onnx", weights())
    path = tmp_path / "new.onnx"
    assert keep_grid(old, onnx_file(path, weights(), int8=True), path) is None


@pytest.fixture(scope="module")
def moved(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny task's weights after a little more training, as it were."""
    generator = torch.Generator().manual_seed(5)
    state = torch.load(tiny_weights, weights_only=True)
    for name, value in state.items():
        if name.endswith("weight") and value.dim() > 1:
            state[name] = value + 3e-4 * torch.randn(value.shape, generator=generator)
    path = tmp_path_factory.mktemp("moved") / "tiny.pt"
    torch.save(state, path)
    return path


def test_a_conversion_keeps_the_grid_of_an_earlier_one(
    tiny: str, moved: Path, tiny_conversion: Outcome, tmp_path: Path
) -> None:
    earlier = tiny_conversion.out
    options = Options(
        weights=moved, schemes=(INT8,), resolutions=((24, 24),), delta_friendly=earlier
    )
    outcome = convert(tiny, ["rpi4", "x86-generic"], tmp_path / "out", options=options)
    assert {item.format for item in outcome.friendly} == {"onnx", "tflite"}
    document, folder = read_conversion(earlier), outcome.out
    for item in outcome.friendly:
        assert item.applied
        assert item.after_bytes < 0.8 * item.before_bytes
        assert item.before_accuracy - item.after_accuracy <= 0.002
        old = next(
            each
            for each in document.artifacts.values()
            if (each.format, each.scheme, each.height_px) == (item.format, INT8, 24)
        )
        new = next(
            each for each in outcome.measured if (each.format, each.scheme) == (item.format, INT8)
        )
        base = DeltaBase((earlier / document.files[old.digest]).read_bytes())
        data = (folder / "artifacts" / new.path.name).read_bytes()
        delta = base.delta(data)
        assert delta is not None
        assert len(delta) == item.after_bytes, "what was measured is what is there"


def test_what_costs_accuracy_is_put_back(tiny_conversion: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "conversion"
    shutil.copytree(tiny_conversion.out, folder)
    items = [
        replace(
            each,
            path=folder / "artifacts" / each.path.name,
            golden=folder / "golden" / each.golden.name,
        )
        for each in tiny_conversion.measured
        if each.scheme == INT8 and each.height_px == 24
    ]
    before = [item.path.read_bytes() for item in items]
    assert items
    earlier = read_conversion(tiny_conversion.out)
    now, tried = make_friendly(
        items,
        earlier,
        tiny_conversion.out,
        most_drop=0.01,
        verify=lambda built: [
            replace(item, accuracy=item.accuracy - 0.02)
            for item in items
            if str(item.path) == built[0]["path"]
        ],
        scratch=tmp_path,
    )
    assert not any(each.applied for each in tried)
    assert now == items
    assert [item.path.read_bytes() for item in items] == before


def test_an_earlier_conversion_that_is_none(tiny: str, moved: Path, tmp_path: Path) -> None:
    options = Options(
        weights=moved, schemes=("fp32",), resolutions=((24, 24),), formats=("onnx",),
        delta_friendly=tmp_path,
    )  # fmt: skip
    with pytest.raises(ContractError, match="no-conversion"):
        convert(tiny, ["jetson-orin-nano"], tmp_path / "out", options=options)
