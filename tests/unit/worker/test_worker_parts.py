"""Meter and swapper: the parts of the frame loop that decide without I/O."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.worker.meter import MAX_LATENCIES, Meter
from agent.worker.points import Loaded
from agent.worker.protocol import Stats
from agent.worker.swap import PAUSE_PATIENCE_S, Swapper
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.errors import EdgeError, RuntimeUnavailableError


def take(meter: Meter) -> Stats:
    return meter.take(point=0, dropped=0, queue_depth=0, rss_mib=0.0, source="")


decisions = st.builds(
    Decision,
    frame=st.integers(0, 9),
    label=st.sampled_from("ab"),
    score=st.floats(0, 1),
    expected=st.sampled_from(["", "a", "b"]),
)


@given(st.lists(st.none() | st.just("take") | decisions, max_size=60))
def test_counts_are_exact_however_they_are_taken(steps: list[str | Decision | None]) -> None:
    meter, taken = Meter(), []
    for step in steps:
        if step is None:
            meter.failed()
        elif isinstance(step, str):
            taken.append(take(meter))
        else:
            meter.decided(step, 1.0)
    taken.append(take(meter))
    seen = [step for step in steps if isinstance(step, Decision)]
    assert sum(s.frames for s in taken) == len(seen)
    assert sum(len(s.latencies_ms) for s in taken) == len(seen)
    assert sum(s.errors for s in taken) == steps.count(None)
    assert sum(s.labelled for s in taken) == sum(bool(d.expected) for d in seen)
    assert sum(s.correct for s in taken) == sum(d.expected == d.label for d in seen)
    assert sum(s.low_confidence for s in taken) == sum(d.score < 0.5 for d in seen)


@given(st.integers(0, 20_000))
def test_latencies_are_bounded_and_thinned_evenly(count: int) -> None:
    meter = Meter()
    decision = Decision(frame=0, label="a", score=1.0)
    for number in range(count):
        meter.decided(decision, float(number))
    kept = take(meter).latencies_ms
    assert len(kept) <= MAX_LATENCIES
    steps = {round(b - a) for a, b in itertools.pairwise(kept)}
    assert len(steps) <= 1
    if count:
        stride = steps.pop() if steps else count
        assert kept[0] == 0 and count - kept[-1] <= stride


class Recorder:
    """A pipeline that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Loads:
    """Loads that finish when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.gates: list[threading.Event] = []
        self.made: dict[int, Recorder] = {}

    def __call__(self, index: int) -> Loaded:
        gate = threading.Event()
        self.gates.append(gate)
        if not gate.wait(30):
            raise TimeoutError
        if self.error is not None:
            raise self.error
        self.made[index] = Recorder()
        return Loaded(index, self.made[index], 1.0)  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def outcome(swapper: Swapper) -> Loaded | tuple[int, EdgeError]:
    found: list[Loaded | tuple[int, EdgeError]] = []

    def poll() -> bool:
        result = swapper.poll()
        if result is not None:
            found.append(result)
        return bool(found)

    until(poll)
    return found[0]


def test_a_superseded_load_is_closed_and_the_last_request_delivered() -> None:
    loads = Loads()
    swapper = Swapper(loads)
    swapper.request(1)
    swapper.request(2)
    swapper.request(3)
    until(lambda: loads.gates)
    assert swapper.poll() is None and swapper.busy
    loads.gates[0].set()
    until(lambda: swapper.poll() is None and len(loads.gates) == 2)
    assert loads.made[1].closed
    loads.gates[1].set()
    result = outcome(swapper)
    assert isinstance(result, Loaded) and result.index == 3
    assert not loads.made[3].closed and list(loads.made) == [1, 3]
    assert not swapper.busy and swapper.poll() is None


def test_a_cancelled_load_is_closed() -> None:
    loads = Loads()
    swapper = Swapper(loads)
    swapper.request(1)
    swapper.cancel()
    until(lambda: loads.gates)
    loads.gates[0].set()
    until(lambda: swapper.poll() is None and 1 in loads.made and loads.made[1].closed)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeUnavailableError("none-available", "No.", "Yes."), "runtime.none-available"),
        (MemoryError("out"), "runtime.load-failed"),
    ],
)
def test_a_failed_load_is_reported_once_and_can_be_tried_again(error: Exception, code: str) -> None:
    loads = Loads(error)
    swapper = Swapper(loads)
    for attempt in (0, 1):
        swapper.request(1)
        until(lambda: len(loads.gates) == attempt + 1)  # noqa: B023 - called within the iteration
        loads.gates[attempt].set()
        result = outcome(swapper)
        assert isinstance(result, tuple) and result[0] == 1 and result[1].code == code
        assert swapper.poll() is None


class Immediate:
    """Loads that are done at once, and remember what is in memory."""

    def __init__(self) -> None:
        self.made: list[tuple[int, Recorder]] = []

    def __call__(self, index: int) -> Loaded:
        recorder = Recorder()
        self.made.append((index, recorder))
        return Loaded(index, recorder, 1.0)  # type: ignore[arg-type]

    @property
    def in_memory(self) -> list[int]:
        return [index for index, recorder in self.made if not recorder.closed]


def test_the_way_back_needs_no_load() -> None:
    loads = Immediate()
    swapper = Swapper(loads)
    current = loads(0)
    for index, load_ms in ((1, 1.0), (0, 0.0), (1, 0.0), (2, 1.0), (1, 0.0), (0, 1.0)):
        swapper.request(index)
        loaded = outcome(swapper)
        assert isinstance(loaded, Loaded) and (loaded.index, loaded.load_ms) == (index, load_ms)
        swapper.keep(current)
        current = loaded
        assert len(loads.in_memory) == 2 and current.index in loads.in_memory


@settings(deadline=None)  # it starts threads, and the machine may be busy
@given(
    st.lists(
        st.integers(0, 3) | st.sampled_from(["cancel", "poll", "prepare", "free"]), max_size=25
    )
)
def test_never_more_than_two_points_in_memory(steps: list[int | str]) -> None:
    loads = Immediate()
    swapper = Swapper(loads)
    current, wanted = loads(0), 0

    def poll() -> None:
        nonlocal current
        loaded = swapper.poll()
        if isinstance(loaded, Loaded):
            swapper.keep(current)
            current = loaded

    for step in steps:
        if step == "cancel":
            swapper.cancel()
            wanted = current.index
        elif isinstance(step, int):
            if step == current.index:
                swapper.cancel()
            else:
                swapper.request(step)
            wanted = step
        elif step == "prepare":
            swapper.prepare((current.index + 1) % 4)
        elif step == "free":
            swapper.free_spare()
        else:
            poll()
        assert len(loads.in_memory) <= 2 and current.index in loads.in_memory
    until(lambda: poll() or not swapper.busy)
    assert current.index == wanted
    assert len(loads.in_memory) <= 2 and current.index in loads.in_memory


def test_a_prepared_point_is_there_until_its_memory_is_wanted() -> None:
    loads = Immediate()
    swapper = Swapper(loads)
    current = loads(0)
    swapper.prepare(2)
    until(lambda: swapper.poll() is not None or not swapper.busy)
    spare = swapper.spare(2)
    assert spare is not None and swapper.spare(1) is None
    swapper.prepare(2)
    assert swapper.spare(2) is spare and not swapper.busy
    swapper.request(2)
    loaded = outcome(swapper)
    assert isinstance(loaded, Loaded) and loaded.load_ms == 0.0 and swapper.spare(2) is None
    swapper.keep(current)
    swapper.free_spare()
    assert loads.in_memory == [2]


def test_where_memory_is_short_the_point_that_was_left_does_not_stay() -> None:
    loads = Immediate()
    swapper = Swapper(loads)
    swapper.keep(loads(0))
    swapper.allow_spare(False)
    assert loads.in_memory == []
    swapper.keep(loads(1))
    assert loads.in_memory == []
    swapper.allow_spare(True)
    swapper.keep(loads(2))
    assert loads.in_memory == [2]


def test_memory_wanted_while_a_point_is_prepared_is_given_back_when_it_comes() -> None:
    loads = Immediate()
    swapper = Swapper(loads)
    swapper.prepare(1)
    swapper.free_spare()
    until(lambda: swapper.poll() is not None or not swapper.busy)
    assert loads.in_memory == []


def test_a_load_waits_for_a_pause_but_not_for_long() -> None:
    swapper = Swapper(Immediate())
    begun = time.monotonic()
    swapper.await_pause()
    assert time.monotonic() - begun >= PAUSE_PATIENCE_S * 0.9
    swapper.pause(begins=True)
    waiting = threading.Thread(target=swapper.await_pause)
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()
