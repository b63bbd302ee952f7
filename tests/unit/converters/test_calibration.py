"""Choosing ranges: properties of every method, then real streaming networks in both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from converters.answers import answers_of
from converters.calibrate import Histogram, align, choose_range, observe
from converters.calibrate.methods import BINS, squared_error
from converters.calibrate.states import check_states
from converters.inspect import inspect_model
from converters.measure import sqnr_db
from converters.onnx_export import export_onnx
from converters.onnx_quantize import onnx_ranges, quantize_onnx
from converters.settings import METHODS, Settings
from converters.tflite_export import export_tflite
from converters.tflite_quantize import quantize_tflite, tflite_ranges
from converters.wiring import answer, as_exported, feeds
from edge_sdk.errors import ConversionError, TaskError
from edge_sdk.runtime.negotiate import open_engine

pytestmark = [
    # torch's exporters use what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning"),
    # Calibration is the case that keeping all tensors is meant for.
    pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all:UserWarning"),
]

QUANTIZE = {"onnx": quantize_onnx, "tflite": quantize_tflite}
EXPORT = {"onnx": export_onnx, "tflite": export_tflite}
RANGES = {"onnx": onnx_ranges, "tflite": tflite_ranges}


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    return Histogram(low, high, np.histogram(values, bins=BINS, range=(low, high))[0].astype(float))


VALUES = st.builds(
    lambda seed, shift, scale, outlier: np.append(
        np.random.default_rng(seed).normal(shift, scale, 3000), outlier
    ),
    st.integers(0, 1000),
    st.floats(-5, 5),
    st.floats(0.01, 100),
    st.floats(-1000, 1000),
)


@given(VALUES, st.sampled_from(METHODS))
def test_a_range_holds_zero_and_nothing_that_was_not_seen(values, method) -> None:
    seen = histogram(values)
    low, high = choose_range(seen, method)
    assert min(seen.low, 0.0) <= low <= 0.0 <= high <= max(seen.high, 0.0)
    assert low < high


@given(VALUES)
def test_mse_never_errs_more_than_min_max(values) -> None:
    seen = histogram(values)
    assert squared_error(seen, *choose_range(seen, "mse")) <= squared_error(
        seen, *choose_range(seen, "min-max")
    )


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_a_lonely_outlier_is_clipped(method) -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 400_000), 60.0)
    low, high = choose_range(histogram(values), method)
    assert choose_range(histogram(values), "min-max")[1] == 60.0
    assert 2.0 < high < 45.0
    assert -6.0 < low < -2.0


def test_a_few_values_are_no_distribution() -> None:
    """Logits of a small calibration set: entropy would clip at random."""
    values = np.random.default_rng(0).normal(0, 1, 300)
    assert choose_range(histogram(values), "entropy") == choose_range(histogram(values), "min-max")


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_has_a_range(method) -> None:
    run = {"t": np.full((4,), 2.5, np.float32), "z": np.zeros(3, np.float32)}
    found = observe(lambda feed: run, [{}], method)
    assert found == {"t": (0.0, 2.5), "z": (0.0, 0.0)}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_calibration_that_is_not_finite_is_refused_by_name(bad) -> None:
    with pytest.raises(TaskError, match="layer7") as caught:
        observe(lambda feed: {"layer7": np.array([1.0, bad], np.float32)}, [{}], "min-max")
    assert caught.value.code == "task.bad-calibration"


class Causal(nn.Module):
    """Attention that masks with minus infinity, as a filled mask or an added one."""

    def __init__(self, how: str, fill: float = -float("inf")) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.inner = nn.Linear(8, 24)
        self.how, self.fill = how, fill
        self.register_buffer("mask", torch.triu(torch.ones(6, 6, dtype=torch.bool), 1))
        self.register_buffer("added", torch.zeros(6, 6).masked_fill(self.mask, fill))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.inner(x).chunk(3, -1)
        scores = query @ key.transpose(1, 2)
        filled = scores.masked_fill(self.mask, self.fill)
        scores = filled if self.how == "filled" else scores + self.added
        return (torch.softmax(scores, -1) @ value).mean(1)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("how", ["filled", "added"])
def test_a_mask_of_minus_infinity_is_refused_and_a_finite_one_pays(kind, how, tmp_path) -> None:
    samples = np.random.default_rng(0).normal(size=(16, 6, 8)).astype(np.float32)
    source, target = tmp_path / f"f.{kind}", tmp_path / f"q.{kind}"
    EXPORT[kind](Causal(how).eval(), torch.zeros(1, 6, 8), source)
    with pytest.raises(ConversionError) as caught:
        QUANTIZE[kind](source, "static_wi8_ai8", samples, target)
    assert caught.value.code == "conversion.endless-mask" and not target.exists()
    module = Causal(how, -30.0).eval()
    EXPORT[kind](module, torch.zeros(1, 6, 8), source)
    QUANTIZE[kind](source, "static_wi8_ai8", samples, target)
    found, widths = answers_of(target, samples)
    with torch.inference_mode():
        expected = module(torch.from_numpy(samples)).numpy()
    assert sqnr_db(found, expected, widths) > 28


def test_no_sample_is_refused() -> None:
    with pytest.raises(TaskError, match=r"task\.bad-calibration"):
        observe(lambda feed: {}, [], "mse")


def test_a_group_gets_the_union_of_its_ranges() -> None:
    ranges = {"a": (-1.0, 0.0), "b": (0.0, 3.0), "c": (-9.0, 9.0)}
    assert align(ranges, [("a", "b", "absent")]) == {
        "a": (-1.0, 3.0),
        "b": (-1.0, 3.0),
        "c": (-9.0, 9.0),
    }
    assert ranges["a"] == (-1.0, 0.0)


class Stream(nn.Module):
    """A convolution over a window that slides: a frame in, the window in and out."""

    def __init__(self, frames: int = 6) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.mix = nn.Conv1d(4, 8, frames)
        self.head = nn.Linear(8, 3)

    def forward(
        self, frame: torch.Tensor, window: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([window, frame], 2)[:, :, 1:]
        return self.head(torch.relu(self.mix(joined)).flatten(1)), joined


class Leaky(nn.Module):
    """A state that starts at zero and settles at ten times its input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.inner = nn.Linear(4, 4)

    def forward(
        self, frame: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        state = 0.9 * state + frame
        return self.inner(state), state


CASES = {"stream": (Stream, (1, 4, 1), (1, 4, 6)), "leaky": (Leaky, (1, 4), (1, 4))}
STATES = ((1, 1),)


def frames(shape: tuple[int, ...], count: int, seed: int) -> list[torch.Tensor]:
    random = np.random.default_rng(seed)
    return [
        torch.from_numpy(random.uniform(0.2, 1, shape).astype(np.float32)) for _ in range(count)
    ]


def packed_run(module: nn.Module, inputs: list[torch.Tensor], state: torch.Tensor):
    """What forward was fed and answered, packed, over a stream that starts with ``state``."""
    fed, answered = [], []
    with torch.inference_mode():
        for frame in inputs:
            fed.append(np.concatenate([frame.numpy().ravel(), state.numpy().ravel()]))
            output, state = module(frame, state)
            answered.append(output.numpy().ravel())
    return np.stack(fed), np.stack(answered)


@pytest.fixture(scope="module", params=sorted(CASES))
def streaming(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A streaming network in both formats with a calibration stream."""
    build, frame, state = CASES[request.param]
    module = build().eval()
    folder = tmp_path_factory.mktemp(request.param)
    for kind, export in EXPORT.items():
        export(module, (torch.zeros(frame), torch.zeros(state)), folder / f"float.{kind}")
    calibration, _ = packed_run(module, frames(frame, 60, 1), torch.zeros(state))
    return module, folder, frame, state, calibration


def fed_back(path: Path, kind: str, inputs: list[torch.Tensor], state: tuple[int, ...]):
    """The file's answers when the stored state goes straight back in, as a device does it."""
    engine = open_engine(path, format=kind)
    specs = [as_exported(spec, kind) for spec in engine.inputs]
    results = [as_exported(spec, kind) for spec in engine.outputs]
    names = {spec.name: position for position, spec in enumerate(specs)}
    where = next(position for name, position in names.items() if "_1" in name)
    back = next(position for position, spec in enumerate(results) if "_1" in spec.name)
    width = int(np.prod(state))
    first = np.concatenate([inputs[0].numpy().ravel(), np.zeros(width, np.float32)])[None]
    stored = feeds(first, specs)[0]
    held, answers = stored[where], []
    for frame in inputs:
        one = np.concatenate([frame.numpy().ravel(), np.zeros(width, np.float32)])[None]
        arrays = feeds(one.astype(np.float32), specs)[0]
        arrays[where] = held
        found = engine.run(arrays)
        answers.append(answer(found, results)[0][: -width or None])
        held = np.array(found[back])
    engine.close()
    return np.stack(answers)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_state_that_is_fed_back_keeps_its_scale(streaming, kind, tmp_path: Path) -> None:
    module, folder, frame, state, calibration = streaming
    target = tmp_path / f"int8.{kind}"
    source = folder / f"float.{kind}"
    QUANTIZE[kind](source, "static_wi8_ai8", calibration, target, Settings(states=STATES))
    check_states(target, STATES)
    inputs = frames(frame, 100, 2)
    _, expected = packed_run(module, inputs, torch.zeros(state))
    assert sqnr_db(fed_back(target, kind, inputs, state), expected) > 25


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_states_of_different_scale_are_refused(streaming, kind, tmp_path: Path) -> None:
    """A state whose two ends were calibrated apart: what the quantizers do on their own."""
    module, folder, _, _, calibration = streaming
    if isinstance(module, Stream):
        pytest.skip("a sliding window is one tensor for the quantizer")
    short = calibration[:3]  # the state still grows: what leaves is larger than what came in
    target = tmp_path / f"int8.{kind}"
    QUANTIZE[kind](folder / f"float.{kind}", "static_wi8_ai8", short, target)
    with pytest.raises(ConversionError, match="fed back") as caught:
        check_states(target, STATES)
    assert caught.value.code == "conversion.state-scales"


def test_a_moving_average_would_clip_a_state_that_starts_at_zero(streaming) -> None:
    """The reason why the quantizer's own calibration is not used."""
    from ai_edge_quantizer import calibrator, recipe, recipe_manager

    from converters.calibrate.feeds import file_feeds

    module, folder, _, _, calibration = streaming
    if isinstance(module, Stream):
        pytest.skip("its window fills at once")
    source = folder / "float.tflite"
    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    theirs = calibrator.Calibrator(str(source), num_threads=1)
    theirs.calibrate({"serving_default": file_feeds(source, calibration[:20])}, rules)
    ours = tflite_ranges(source, calibration[:20], Settings())
    name = next(spec.name for spec in inspect_model(source).inputs if "_1" in spec.name)
    averaged = float(np.max(theirs.get_model_qsvs()[name]["max"]))
    largest = float(calibration[:20, 4:].max())
    assert ours[name][1] == pytest.approx(largest)
    assert averaged < 0.8 * largest


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("method", METHODS)
def test_ranges_come_from_the_methods(streaming, kind, method) -> None:
    """Every float tensor has a range, and clipping methods never widen one."""
    _, folder, _, _, calibration = streaming
    source = folder / f"float.{kind}"
    widest = RANGES[kind](source, calibration, Settings())
    found = RANGES[kind](source, calibration, Settings(calibration=method))
    assert found.keys() == widest.keys() and found
    for name, (low, high) in found.items():
        assert widest[name][0] - 1e-6 <= low <= high <= widest[name][1] + 1e-6


@pytest.mark.parametrize("states", [((1, 2),), ((2, 1),), ((-1, 0),)])
def test_a_state_that_does_not_exist_is_refused(streaming, states, tmp_path: Path) -> None:
    _, folder, _, _, calibration = streaming
    with pytest.raises(ConversionError, match=r"conversion\.bad-state"):
        quantize_onnx(
            folder / "float.onnx",
            "static_wi8_ai8",
            calibration,
            tmp_path / "x.onnx",
            Settings(states=states),
        )
