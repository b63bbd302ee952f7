"""Waves against riders of every speed: no queue overflows, nobody is held up for long, all ends."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.delivery.wave import (
    CREDIT_EVERY,
    LAG_S,
    MIN_RIDERS,
    SPAN,
    STALL_S,
    WINDOW,
    Leave,
    Over,
    Send,
    Wait,
    Wave,
)

TURN_S = 0.05


class Rider:
    """Takes a chunk every few turns from its queue at the broker, and gives credit."""

    def __init__(self, every: int) -> None:
        self.every = every
        """Turns for a chunk; 0 for never."""
        self.queue: deque[int] = deque()
        self.got: list[int] = []
        self.told = 0
        self.left = False

    def turn(self, number: int) -> int | None:
        """The credit it gives in this turn."""
        if not self.queue or not self.every or number % self.every:
            return None
        self.got.append(self.queue.popleft())
        if self.got[-1] + 1 - self.told < CREDIT_EVERY:
            return None
        self.told = self.got[-1] + 1
        return self.told


def ride(wave: Wave, riders: dict[str, Rider]) -> float:
    """Run until the wave is over; how long that took."""
    now = number = 0
    for name in riders:
        wave.credit(name, 0)
    while now * TURN_S < 3600:
        now, number = now + 1, number + 1
        action = wave.step(now * TURN_S)
        match action:
            case Over():
                return now * TURN_S
            case Send(index, count):
                for rider in riders.values():
                    if not rider.left:
                        rider.queue.extend(range(index, index + count))
                        assert len(rider.queue) <= WINDOW
            case Leave(devices):
                for name in devices:
                    riders[name].left = True
            case Wait(until):
                assert until > now * TURN_S
        for name, rider in riders.items():
            credit = rider.turn(number)
            if credit is not None:
                wave.credit(name, credit)
    raise AssertionError("never over")


@given(
    st.integers(1, 200),
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.integers(1, SPAN),
)
@settings(max_examples=60, deadline=None)
def test_a_wave_never_overflows_a_queue_and_always_ends(
    chunks: int, speeds: list[int], span: int
) -> None:
    riders = {f"d{number}": Rider(speed) for number, speed in enumerate(speeds)}
    wave = Wave(chunks, 1.0, span)
    took = ride(wave, riders)
    assert took < 1.0 + (chunks + 1) * 5 * TURN_S + 12 * (STALL_S + LAG_S)
    if len(riders) < MIN_RIDERS:
        assert wave.sent == 0
        return
    for rider in riders.values():
        whole = [*rider.got, *rider.queue]
        assert whole == list(range(len(whole)))
        if not rider.left:
            assert len(whole) == wave.sent
    if any(not rider.left for rider in riders.values()):
        assert wave.sent == chunks


def test_a_laggard_holds_up_the_others_for_a_moment_only() -> None:
    riders = {f"d{number}": Rider(1) for number in range(9)} | {"slow": Rider(0)}
    took = ride(Wave(200, leaves_at=0.0), riders)
    assert [name for name, rider in riders.items() if rider.left] == ["slow"]
    assert took < 200 * 1.5 * TURN_S + LAG_S + 1


def test_when_most_are_slow_the_wave_waits_for_them() -> None:
    riders = {"quick": Rider(1)} | {f"d{number}": Rider(10) for number in range(5)}
    ride(Wave(100, leaves_at=0.0), riders)
    assert not any(rider.left for rider in riders.values())


def test_a_message_holds_no_more_chunks_than_every_rider_takes_nor_than_there_are() -> None:
    wave = Wave(10, leaves_at=0.0, span=SPAN)
    for name, span in (("a", SPAN), ("b", 9), ("c", 3)):
        wave.credit(name, 0, span)
    assert [wave.step(0.0) for _ in range(2)] == [Send(0, 3), Send(3, 3)]
    for name in "abc":
        wave.credit(name, 6)
    assert [wave.step(0.0) for _ in range(3)] == [Send(6, 3), Send(9, 1), Over()]


def test_nobody_gets_on_a_wave_that_has_left() -> None:
    wave = Wave(100, leaves_at=0.0)
    for name in "abc":
        wave.credit(name, 0)
    assert wave.step(0.0) == Send(0)
    wave.credit("late", 0)
    assert "late" not in wave.seen


def test_credit_is_not_believed_beyond_what_was_sent_nor_backwards() -> None:
    wave = Wave(100, leaves_at=0.0)
    for name in "abc":
        wave.credit(name, 0)
    for _ in range(WINDOW):
        wave.step(0.0)
    for name in "abc":
        wave.credit(name, 10**9)
        wave.credit(name, 0)
    assert set(wave.seen.values()) == {WINDOW}
    assert wave.step(0.0) == Send(WINDOW)
