"""Preprocessing against the naive float path, and whole pipelines on real runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipelines.pixels import Cv2Pixels, NumpyPixels
from agent.pipelines.preprocess import Preprocessor
from agent.pipelines.shapes import image_shape
from agent.pipelines.vision import VisionPipeline
from agent.sources.base import Frame
from edge_sdk.contracts.manifest import Artifact, Preprocess
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import dequantize
from edge_sdk.runtime.negotiate import open_engine
from tests.fakes.classifiers import LABELS, Recipe, colour_frames, make_release


def spec(shape: tuple[int, ...], layout: str, scale: float | None, zero: int | None) -> TensorSpec:
    dtype = "float32" if scale is None else "int8"
    return TensorSpec(
        name="x", dtype=dtype, shape=shape, layout=layout, scale=scale, zero_point=zero
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Preprocess, TensorSpec, np.ndarray]:
    color = draw(st.sampled_from(["gray", "rgb"]))
    channels = 1 if color == "gray" else 3
    per_channel = st.tuples(*[st.floats(0, 255, width=32)] * channels)
    preprocess = Preprocess(
        color=color,
        mean=draw(per_channel),
        std=draw(st.tuples(*[st.floats(1, 255, width=32)] * channels)),
    )
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    shape = (1, channels, height, width) if layout == "NCHW" else (1, height, width, channels)
    scale = draw(st.none() | st.floats(2**-10, 2.0, width=32))
    zero = None if scale is None else draw(st.integers(-128, 127))
    frame_shape = (height, width) + ((3,) if draw(st.booleans()) else ())
    seed = draw(st.integers(0, 2**32))
    frame = np.random.default_rng(seed).integers(0, 256, frame_shape, np.uint8)
    return preprocess, spec(shape, layout, scale, zero), frame


def naive(preprocess: Preprocess, frame: np.ndarray) -> np.ndarray:
    """What a training script does: (C, H, W) float64."""
    if preprocess.color == "gray":
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame
        image = grey[None].astype(np.float64)
    else:
        bgr = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else frame
        image = bgr[..., ::-1].transpose(2, 0, 1).astype(np.float64)
    mean = np.array(preprocess.mean).reshape(-1, 1, 1)
    return (image - mean) / np.array(preprocess.std).reshape(-1, 1, 1)


@given(cases())
def test_tables_equal_the_float_path_within_a_step(
    case: tuple[Preprocess, TensorSpec, np.ndarray],
) -> None:
    preprocess, tensor, frame = case
    real = naive(preprocess, frame)
    for pixels in (NumpyPixels(), Cv2Pixels(cv2)):
        stored = Preprocessor(preprocess, tensor, pixels)(frame)
        assert stored.dtype == tensor.dtype and stored.shape == tensor.shape
        got = dequantize(stored, tensor)[0]
        got = got.transpose(2, 0, 1) if tensor.layout == "NHWC" else got
        if tensor.scale is None:
            np.testing.assert_allclose(got, real, rtol=1e-5, atol=1e-5)
        else:
            low = tensor.scale * (-128 - tensor.zero_point)
            high = tensor.scale * (127 - tensor.zero_point)
            error = np.abs(got - np.clip(real, low, high)).max()
            assert error <= 0.5 * tensor.scale * (1 + 1e-4) + 1e-5


def test_every_pixel_of_the_buffer_is_rewritten_and_may_be_the_callers() -> None:
    preprocess = Preprocess(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    tensor = spec((1, 3, 5, 7), "NCHW", None, None)
    buffer = np.full(tensor.shape, np.nan, np.float32)
    result = Preprocessor(preprocess, tensor, Cv2Pixels(cv2), buffer)(np.zeros((5, 7, 3), np.uint8))
    assert result is buffer and not buffer.any()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 8, 8), "NHWC"),
        ((2, 3, 8, 8), "NCHW"),
        ((1, 1, 8, 8), "NCHW"),
        ((1, 192), "NC"),
        ((1, 3, 8, 8), "other"),
        ((1, 3, 0, 8), "NCHW"),
    ],
)
def test_an_input_that_takes_no_such_image_is_refused(shape: tuple[int, ...], layout: str) -> None:
    preprocess = Preprocess(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(ContractError) as caught:
        image_shape(preprocess, spec(shape, layout, None, None))
    assert caught.value.code == "contract.model-input"


@contextmanager
def pipeline(folder: Path, kind: str, **changes: object) -> Iterator[VisionPipeline]:
    """A pipeline on a real engine, with the artifact's description changed."""
    release = make_release(folder / "r", [Recipe(kind, 16)])
    artifact = next(iter(release.manifest.artifacts.values()))
    task = msgspec.structs.replace(
        release.manifest.task, **{k: v for k, v in changes.items() if k == "labels"}
    )
    described: Artifact = msgspec.structs.replace(
        artifact, **{k: v for k, v in changes.items() if k != "labels"}
    )
    engine = open_engine(release.artifact(0), format=artifact.format)
    try:
        yield VisionPipeline(engine, described, task, Cv2Pixels(cv2))
    finally:
        engine.close()


@pytest.mark.parametrize("kind", ["onnx", "tflite", "tflite-int8"])
@pytest.mark.parametrize("size_px", [16, 40])
def test_real_models_decide_rightly_with_softmax_scores(
    tmp_path: Path, kind: str, size_px: int
) -> None:
    frames, labels = colour_frames(30, size_px=size_px)
    with pipeline(tmp_path, kind) as vision:
        for number, (image, label) in enumerate(zip(frames, labels, strict=True)):
            decision = vision.process(Frame(number, image, label))
            means = image[..., ::-1].reshape(-1, 3).mean(0) / 255
            expected = np.exp(means) / np.exp(means).sum()
            assert (decision.frame, decision.label, decision.expected) == (number, label, label)
            assert decision.score == pytest.approx(expected.max(), abs=0.01)


def test_grey_frames_reach_a_colour_model(tmp_path: Path) -> None:
    with pipeline(tmp_path, "onnx") as vision:
        decision = vision.process(Frame(0, np.full((16, 16), 90, np.uint8), ""))
        assert decision.score == pytest.approx(1 / 3, abs=1e-6) and decision.label in LABELS


def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    with pipeline(tmp_path, "onnx-overflow") as vision:
        with pytest.raises(ContractError) as caught:
            vision.process(Frame(7, np.full((16, 16, 3), 90, np.uint8), ""))
        assert caught.value.code == "contract.model-output" and "frame 7" in caught.value.cause


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"labels": ("a", "b")}, "contract.model-output"),
        ({"inputs": (spec((1, 3, 8, 8), "NCHW", None, None),)}, "contract.model-input"),
        ({"inputs": (spec((1, 3, 16, 16), "NCHW", 0.1, 0),)}, "contract.model-input"),
        ({"outputs": ()}, "contract.model-output"),
    ],
)
def test_a_model_that_is_not_what_its_release_says_is_refused(
    tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(ContractError) as caught, pipeline(tmp_path, "onnx", **changes):
        pass
    assert caught.value.code == code
