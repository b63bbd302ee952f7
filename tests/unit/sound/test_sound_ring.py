"""The ring: every listener hears all there is, in order, and knows what it has missed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sound.drift import Drift
from agent.sound.ring import Heard, Listener, SoundRing
from edge_sdk.errors import SourceError

CAPACITY = 50


def ramp(start: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Samples that say where they lie."""
    return np.arange(start, start + count, dtype=np.float32)


def take_all(listener: Listener) -> list[Heard]:
    found = []
    while (heard := listener.take(0.0)) is not None:
        found.append(heard)
    return found


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "gap", "one", "two"]), st.integers(1, 120)), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_listeners_hear_the_stream_or_know_what_is_missing(steps: list[Step]) -> None:
    ring = SoundRing(CAPACITY)
    listeners = {"one": ring.listen(), "two": ring.listen()}
    heard: dict[str, list[Heard]] = {"one": [], "two": []}
    gaps: set[int] = set()
    for kind, size in steps:
        if kind == "write":
            ring.write(ramp(ring.written, size))
        elif kind == "gap":
            ring.mark_gap()
            gaps.add(ring.written)
        else:
            got = listeners[kind].take(0.0, most=size)
            heard[kind] += [] if got is None else [got]
    for name, listener in listeners.items():
        heard[name] += take_all(listener)
        at = 0
        for piece in heard[name]:
            assert len(piece.samples), "a piece holds something"
            assert np.array_equal(piece.samples, ramp(piece.start, len(piece.samples)))
            assert piece.start >= at
            assert piece.resumed == (piece.start > at or piece.start in gaps)
            assert not any(piece.start < gap < piece.start + len(piece.samples) for gap in gaps)
            at = piece.start + len(piece.samples)
        assert at == ring.written or not heard[name]
        assert listener.lost == ring.written - sum(len(p.samples) for p in heard[name])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 130), max_size=10), st.integers(0, 600), st.integers(0, 600))
def test_recall_gives_what_is_still_there(sizes: list[int], start: int, end: int) -> None:
    ring = SoundRing(CAPACITY)
    for size in sizes:
        ring.write(ramp(ring.written, size))
    found = ring.recall(start, end)
    oldest = max(0, ring.written - CAPACITY)
    wanted = [i for i in range(start, end) if oldest <= i < ring.written]
    assert found.tolist() == wanted


def test_a_files_reader_waits_for_the_slowest_listener() -> None:
    ring = SoundRing(CAPACITY, waits=True)
    slow, quick = ring.listen(), ring.listen()
    writer = threading.Thread(target=lambda: (ring.write(ramp(0, 500)), ring.end()))
    writer.start()
    found: dict[Listener, list[float]] = {slow: [], quick: []}
    while not (slow.ended and quick.ended):
        for listener, most in ((quick, 50), (slow, 7)):
            heard = listener.take(1.0, most)
            found[listener] += [] if heard is None else heard.samples.tolist()
    writer.join(5)
    assert found[slow] == found[quick] == list(range(500))
    assert slow.lost == quick.lost == 0


def test_a_listener_that_leaves_is_not_waited_for() -> None:
    ring = SoundRing(CAPACITY, waits=True)
    gone, stays = ring.listen(), ring.listen()
    writer = threading.Thread(target=ring.write, args=(ramp(0, 70),))
    writer.start()
    gone.leave()
    assert [len(h.samples) for h in (stays.take(5.0), stays.take(5.0)) if h] == [50, 20]
    writer.join(5)
    assert not writer.is_alive()


def test_closing_frees_a_writer_that_waits() -> None:
    ring = SoundRing(CAPACITY, waits=True)
    ring.listen()
    writer = threading.Thread(target=ring.write, args=(ramp(0, 200),))
    writer.start()
    ring.close()
    writer.join(5)
    assert not writer.is_alive()


def test_an_error_comes_after_everything_before_it() -> None:
    ring = SoundRing(CAPACITY)
    listener = ring.listen()
    ring.write(ramp(0, 10))
    ring.end(SourceError("failed", "It broke.", "Mend it."))
    heard = listener.take(0.0)
    assert heard is not None
    assert len(heard.samples) == 10
    assert not listener.ended
    with pytest.raises(SourceError):
        listener.take(0.0)


@pytest.mark.parametrize("ppm", [-300.0, 0.0, 85.0, 20000.0])
def test_drift_is_found_through_jitter(ppm: float) -> None:
    random, drift = np.random.default_rng(0), Drift(16000)
    for index in range(15000):
        samples = (index + 1) * 320
        on_time_s = samples / (16000 * (1 + ppm * 1e-6))
        drift.arrived(samples, 1000.0 + on_time_s + float(random.exponential(0.003)))
        if index * 0.02 < 19:
            assert drift.ppm is None
    assert drift.ppm == pytest.approx(ppm, abs=5)
