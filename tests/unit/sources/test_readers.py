"""Real files and the camera that is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipelines.config import SourceConfig
from agent.sources.base import Reader
from agent.sources.build import build_feed, build_reader
from agent.sources.feed import Feed
from agent.sources.frames import FramesReader
from agent.sources.labels import read_labels
from agent.sources.video import VideoReader
from edge_sdk.errors import SourceError


def read_all(reader: Reader) -> list[np.ndarray]:
    images = []
    while (image := reader.read()) is not None:
        images.append(image.copy())
    return images


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 3)])
def test_frames_are_read_as_written_and_again_after_a_rewind(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez_compressed(tmp_path / "f.npz", frames=frames, labels=np.arange(5))
    reader = FramesReader(tmp_path / "f.npz")
    for _ in range(2):
        assert reader.open() == ("0", "1", "2", "3", "4")
        images = read_all(reader)
        wanted = frames[..., 0] if shape[-1] == 1 else frames
        np.testing.assert_array_equal(np.stack(images), wanted)
        reader.close()


@pytest.mark.parametrize(
    "arrays",
    [
        {"frames": np.zeros((2, 3, 4), np.float32)},
        {"frames": np.zeros((3, 4), np.uint8)},
        {"frames": np.zeros((2, 3, 4, 2), np.uint8)},
        {"frames": np.zeros((0, 3, 4), np.uint8)},
        {"images": np.zeros((2, 3, 4), np.uint8)},
        {"frames": np.zeros((2, 3, 4), np.uint8), "labels": np.arange(3)},
    ],
)
def test_arrays_that_are_no_frames_are_named(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(SourceError) as caught:
        FramesReader(tmp_path / "f.npz").open()
    assert caught.value.code == "source.bad-frames" and "f.npz" in caught.value.cause


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", frames=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SourceError) as caught:
        FramesReader(tmp_path / "f.npz").open()
    assert caught.value.code == "source.bad-frames"


@given(st.binary(max_size=300))
def test_any_file_is_frames_or_a_named_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.npz"
        path.write_bytes(data)
        with pytest.raises(SourceError):
            FramesReader(path).open()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_any_byte_changed_is_frames_or_a_named_error(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    path = tmp_path / "f.npz"
    save(path, frames=np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8))
    data = path.read_bytes()
    named = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            FramesReader(path).open()
        except SourceError as error:
            assert error.code == "source.bad-frames"
            named += 1
    assert named > len(data) / 2


def write_video(path: Path, count: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (32, 24))
    for number in range(count):
        writer.write(np.full((24, 32, 3), 10 * number, np.uint8))
    writer.release()


def test_a_video_is_read_to_its_end_and_again(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 12)
    reader = VideoReader(tmp_path / "v.avi")
    for _ in range(2):
        reader.open()
        images = read_all(reader)
        reader.close()
        assert len(images) == 12 and images[0].shape == (24, 32, 3)
        levels = [float(image.mean()) for image in images]
        assert levels == pytest.approx([10.0 * n for n in range(12)], abs=3)


@pytest.mark.parametrize("content", [b"", b"not a video" * 100])
def test_a_file_that_is_no_video_is_named(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "v.avi"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        VideoReader(path).open()
    assert caught.value.code == "source.undecodable"


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for reader in (VideoReader(tmp_path / "a"), FramesReader(tmp_path / "b")):
        with pytest.raises(SourceError) as caught:
            reader.open()
        assert caught.value.code == "source.missing-file" and reader.where in caught.value.cause
    with pytest.raises(SourceError) as caught:
        read_labels(tmp_path / "c")
    assert caught.value.code == "source.missing-file"


@pytest.mark.parametrize("device", [97, "97", "/dev/video97", "videotestsrc ! nonsense ! appsink"])
def test_a_camera_that_is_not_there_is_named(
    device: int | str, capfd: pytest.CaptureFixture[str]
) -> None:
    reader = build_reader(SourceConfig(kind="camera", device=device))
    assert reader.live
    with pytest.raises(SourceError) as caught:
        reader.open()
    assert caught.value.code == "source.no-camera" and str(device) in caught.value.cause
    reader.close()


def test_a_camera_that_stops_is_opened_again(tmp_path: Path) -> None:
    """OpenCV takes a file where it takes a device, which then looks like a camera that is lost."""
    write_video(tmp_path / "v.avi", 3)
    config = SourceConfig(kind="camera", device=str(tmp_path / "v.avi"), width_px=32, height_px=24)
    feed = Feed(build_reader(config), capacity=100)
    feed.start()
    levels = []
    while len(levels) < 9:
        frame = feed.get(30.0)
        assert frame is not None
        levels.append(round(float(frame.image.mean()) / 10))
    feed.close()
    assert levels == [0, 1, 2] * 3


def test_labels_are_names_or_integers(tmp_path: Path) -> None:
    path = tmp_path / "l.json"
    path.write_text('{"labels": ["a", 7, ""], "made_by": "a test"}')
    assert read_labels(path) == ("a", "7", "")


@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
def test_any_labels_file_is_labels_or_a_named_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.json"
        path.write_bytes(data)
        with pytest.raises(SourceError) as caught:
            read_labels(path)
        assert caught.value.code == "source.bad-labels"


def test_a_sidecar_replaces_the_frames_own_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", frames=np.zeros((2, 3, 4), np.uint8), labels=np.arange(2))
    (tmp_path / "l.json").write_text('{"labels": ["x", "y"]}')
    config = SourceConfig(
        kind="frames", path=str(tmp_path / "f.npz"), labels=str(tmp_path / "l.json")
    )
    feed = build_feed(config)
    feed.start()
    frames = [feed.get(10.0), feed.get(10.0)]
    feed.close()
    assert [frame.label for frame in frames if frame] == ["x", "y"]


def test_without_opencv_video_names_the_extra_and_frames_still_work(tmp_path: Path) -> None:
    """In a Python whose import of cv2 fails, as where the extra is not installed."""
    np.savez(tmp_path / "f.npz", frames=np.zeros((2, 3, 4), np.uint8))
    (tmp_path / "cv2.py").write_text("raise ImportError('No module named cv2')")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from agent.pipelines.config import SourceConfig
from agent.pipelines.pixels import NumpyPixels, pick_pixels
from agent.sources.build import build_reader
from edge_sdk.errors import SourceError
for kind in ("video", "camera"):
    try:
        build_reader(SourceConfig(kind=kind, path="v.avi"))
    except SourceError as error:
        print(error.code, error.hint)
reader = build_reader(SourceConfig(kind="frames", path={str(tmp_path / "f.npz")!r}))
reader.open()
print(reader.read().shape, type(pick_pixels()).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert done.splitlines() == [
        "source.extra-missing pip install 'edge-sdk[vision]'",
        "source.extra-missing pip install 'edge-sdk[vision]'",
        "(3, 4) NumpyPixels",
    ]
