"""numpy's pixel operations give OpenCV's bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.pipelines.pixels import Cv2Pixels, NumpyPixels, pick_pixels
from edge_sdk.errors import SourceError

sides = st.integers(1, 40)


@st.composite
def images(draw: st.DrawFn, colour: bool | None = None) -> np.ndarray:
    if colour is None:
        colour = draw(st.booleans())
    shape = (draw(sides), draw(sides)) + ((3,) if colour else ())
    # A seed, not elements: resizing has to be right on values no generator would pick.
    return np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, shape, np.uint8)


@given(images(), sides, sides, st.sampled_from(["linear_exact", "nearest"]))
def test_resizing_is_bit_exact(image: np.ndarray, height: int, width: int, how: str) -> None:
    mine = NumpyPixels().resize(image, height, width, how)
    theirs = Cv2Pixels(cv2).resize(image, height, width, how)
    assert mine.dtype == np.uint8 and mine.shape[:2] == (height, width)
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("source", "target"), [((240, 320), (96, 96)), ((64, 64), (32, 32)), ((33, 50), (224, 224))]
)
def test_resizing_camera_frames_is_bit_exact(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    image = np.random.default_rng(5).integers(0, 256, (*source, 3), np.uint8)
    np.testing.assert_array_equal(
        NumpyPixels().resize(image, *target, "linear_exact"),
        Cv2Pixels(cv2).resize(image, *target, "linear_exact"),
    )


@given(images(colour=True))
def test_grey_is_bit_exact(image: np.ndarray) -> None:
    np.testing.assert_array_equal(NumpyPixels().gray(image), Cv2Pixels(cv2).gray(image))


@given(
    images(),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.sampled_from(["int8", "uint8", "float32"]),
    st.data(),
)
def test_tables_are_looked_up_in_place_in_every_layout(
    image: np.ndarray, channels: int, interleaved: bool, dtype: str, data: st.DataObject
) -> None:
    if channels == 1 and image.ndim == 3:
        image = image[..., 0].copy()
    tables = (
        data.draw(hnp.arrays(dtype, (channels, 256), fill=st.nothing(), unique=False))
        if (dtype == "int8")
        else np.random.default_rng(3).integers(0, 100, (channels, 256)).astype(dtype)
    )
    height, width = image.shape[:2]
    planes = [image] * channels if image.ndim == 2 else [image[..., c] for c in (2, 1, 0)]
    expected = np.stack([table[plane] for table, plane in zip(tables, planes, strict=True)])
    for pixels in (NumpyPixels(), Cv2Pixels(cv2)):
        shape = (height, width, channels) if interleaved else (channels, height, width)
        memory = np.zeros(shape, dtype)
        out = memory.transpose(2, 0, 1) if interleaved else memory
        pixels.table_writer(tables, out)(image)
        np.testing.assert_array_equal(out, expected)


def test_area_needs_opencv_and_says_what_to_install() -> None:
    with pytest.raises(SourceError) as caught:
        NumpyPixels().resize(np.zeros((4, 4), np.uint8), 2, 2, "area")
    assert caught.value.code == "source.extra-missing"
    assert "edge-sdk[vision]" in caught.value.hint


def test_opencv_is_picked_where_it_is_installed() -> None:
    assert isinstance(pick_pixels(), Cv2Pixels)
