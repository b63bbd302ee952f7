"""The feed between a source and the frame loop, driven by readers of the test's own."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sources.base import Frame, Image
from agent.sources.feed import Feed
from edge_sdk.errors import SourceError


class Numbers:
    """Frames whose only pixel is their number; a file, or a camera that a test drives."""

    where = "numbers"

    def __init__(self, count: int, *, live: bool = False) -> None:
        self.live = live
        self.count = count
        self.opened = 0
        self.closed = 0
        self.fail_opening = 0
        self.allowed: threading.Semaphore | None = None
        self._next = 0

    def open(self) -> tuple[str, ...] | None:
        self.opened += 1
        if self.fail_opening:
            self.fail_opening -= 1
            raise SourceError("no-camera", "It is not there.", "Plug it in.")
        self._next = 0
        return None

    def read(self) -> Image | None:
        if self.allowed is not None and not self.allowed.acquire(timeout=30):
            return None
        if self._next == self.count:
            return None
        self._next += 1
        return np.full((1, 1), self._next - 1, np.uint8)

    def close(self) -> None:
        self.closed += 1


def drain(feed: Feed, limit: int = 10_000) -> list[Frame]:
    frames: list[Frame] = []
    deadline = time.monotonic() + 30
    while not feed.ended and len(frames) < limit:
        frame = feed.get(0.05)
        if frame is not None:
            frames.append(frame)
        assert time.monotonic() < deadline
    return frames


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(1, 6))
def test_a_file_loses_nothing_and_keeps_its_order(count: int, capacity: int) -> None:
    labels = tuple(f"l{n}" for n in range(count))
    reader = Numbers(count)
    feed = Feed(reader, labels=labels, capacity=capacity)
    feed.start()
    frames = drain(feed)
    feed.close()
    assert [f.number for f in frames] == list(range(count))
    assert [int(f.image[0, 0]) for f in frames] == list(range(count))
    assert tuple(f.label for f in frames) == labels
    assert feed.dropped == 0 and reader.closed >= 1


def test_a_file_waits_while_the_queue_is_full() -> None:
    reader = Numbers(100)
    feed = Feed(reader, capacity=3)
    feed.start()
    deadline = time.monotonic() + 30
    while feed.depth < 3:
        assert time.monotonic() < deadline
    time.sleep(0.05)
    assert feed.depth == 3
    feed.close()


def test_a_looped_file_counts_on_and_repeats_its_labels() -> None:
    feed = Feed(Numbers(3), labels=("a", "b", "c"), loop=True)
    feed.start()
    frames = drain(feed, limit=8)
    feed.close()
    assert [f.number for f in frames] == list(range(8))
    assert [f.label for f in frames] == ["a", "b", "c", "a", "b", "c", "a", "b"]


@pytest.mark.parametrize("labels", [("a",), ("a", "b", "c", "d")])
def test_labels_that_do_not_match_the_file_are_an_error_after_it(labels: tuple[str, ...]) -> None:
    feed = Feed(Numbers(3), labels=labels)
    feed.start()
    with pytest.raises(SourceError) as caught:
        drain(feed)
    assert caught.value.code == "source.labels-mismatch"
    assert f"3 frames and {len(labels)} labels" in caught.value.cause


def test_an_empty_file_that_loops_ends_with_an_error() -> None:
    feed = Feed(Numbers(0), loop=True)
    feed.start()
    with pytest.raises(SourceError) as caught:
        drain(feed)
    assert caught.value.code == "source.empty"


def test_a_live_source_drops_its_oldest_frames_and_counts_them() -> None:
    reader = Numbers(20, live=True)
    reader.allowed = threading.Semaphore(20)
    feed = Feed(reader, capacity=4)
    feed.start()
    deadline = time.monotonic() + 30
    while feed.dropped < 16:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    frames = [frame for frame in (feed.get(0.0) for _ in range(4)) if frame is not None]
    assert [f.number for f in frames] == [16, 17, 18, 19]
    reader.allowed.release()
    feed.close()


def test_a_lost_camera_is_opened_again_until_it_answers() -> None:
    reader = Numbers(2, live=True)
    reader.fail_opening = 1
    feed = Feed(reader, capacity=100)
    feed.start()
    frames, troubles = [], set()
    deadline = time.monotonic() + 30
    while len(frames) < 4:
        frame = feed.get(0.01)
        if frame is not None:
            frames.append(frame)
        troubles.add(feed.trouble)
        assert time.monotonic() < deadline
    feed.close()
    assert reader.opened >= 3
    assert troubles >= {"It is not there.", "numbers stopped delivering frames."}
    assert [f.number for f in frames] == [0, 1, 2, 3]


def test_closing_interrupts_the_pause_before_a_camera_is_tried_again() -> None:
    reader = Numbers(1, live=True)
    reader.fail_opening = 1000
    feed = Feed(reader)
    feed.start()
    time.sleep(0.05)
    feed.close(30)
    assert not any(thread.name == "source" for thread in threading.enumerate())


def test_a_pace_is_kept_on_average() -> None:
    feed = Feed(Numbers(21), fps=100.0)
    start = time.monotonic()
    feed.start()
    assert len(drain(feed)) == 21
    assert time.monotonic() - start >= 0.19  # 20 periods; a slow machine only makes it longer


def test_a_broken_reader_is_an_error_not_a_silence() -> None:
    class Broken(Numbers):
        def read(self) -> Image | None:
            raise ZeroDivisionError("inside a codec")

    feed = Feed(Broken(3))
    feed.start()
    with pytest.raises(SourceError) as caught:
        drain(feed)
    assert caught.value.code == "source.failed" and "inside a codec" in caught.value.cause


def test_a_live_source_is_thinned_to_its_pace() -> None:
    class Fast(Numbers):
        def read(self) -> Image | None:
            time.sleep(0.001)
            return super().read()

    feed = Feed(Fast(200, live=True), fps=50.0, capacity=1000)
    start = time.monotonic()
    feed.start()
    while "stopped" not in feed.trouble:
        assert time.monotonic() - start < 30
        time.sleep(0.001)
    elapsed_s = time.monotonic() - start
    feed.close()
    assert 2 <= feed.depth <= elapsed_s * 50 + 2
    assert feed.dropped == 0
