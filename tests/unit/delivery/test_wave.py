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
    WORD_S,
    Action,
    Leave,
    Over,
    Send,
    Wait,
    Wave,
    next_word,
)

TURN_S = 0.05


class Rider:
    """Takes a chunk every few turns from its queue at the broker, and says how far it is.

    Args:
        name: gives it its place.
        every: turns for a chunk.
        speaks_every: chunks between two words.
    """

    def __init__(self, name: str, every: int, speaks_every: int = CREDIT_EVERY) -> None:
        self.name, self.every, self.speaks_every = name, every, speaks_every
        """Turns for a chunk; 0 for never."""
        self.queue: deque[int] = deque()
        self.got: list[int] = []
        self.due, self.told_at = next_word(name, 0, speaks_every), 0
        self.left = False

    def turn(self, number: int) -> int | None:
        """The credit it gives in this turn."""
        if self.queue and self.every and number % self.every == 0:
            self.got.append(self.queue.popleft())
        late = number * TURN_S >= self.told_at * TURN_S + WORD_S
        if len(self.got) < self.due and not (self.got and late):
            return None
        self.told_at = number
        self.due = next_word(self.name, len(self.got), self.speaks_every)
        return len(self.got)


def riders_of(speeds: list[int], speaks_every: int = CREDIT_EVERY) -> dict[str, Rider]:
    names = [f"d{number}" for number in range(len(speeds))]
    speeds_of = zip(names, speeds, strict=True)
    return {name: Rider(name, speed, speaks_every) for name, speed in speeds_of}


def ride(wave: Wave, riders: dict[str, Rider], lost: int = 0) -> float:
    """Run until the wave is over; how long that took. The word of that number is lost."""
    now = number = said = 0
    for name in riders:
        wave.credit(name, 0, wave.span)
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
                said += 1
                if said != lost:
                    wave.credit(name, credit)
    raise AssertionError("never over")


@given(
    st.integers(1, 200),
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.integers(1, SPAN),
    st.sampled_from((4, CREDIT_EVERY)),
)
@settings(max_examples=60, deadline=None)
def test_a_wave_never_overflows_a_queue_and_always_ends(
    chunks: int, speeds: list[int], span: int, speaks_every: int
) -> None:
    """Whether riders speak as often as those of earlier versions or not."""
    riders = riders_of(speeds, speaks_every)
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
    riders = riders_of([1] * 9) | {"slow": Rider("slow", 0)}
    took = ride(Wave(200, leaves_at=0.0), riders)
    assert [name for name, rider in riders.items() if rider.left] == ["slow"]
    assert took < 200 * 1.5 * TURN_S + LAG_S + 1


def test_when_most_are_slow_the_wave_waits_for_them() -> None:
    riders = {"quick": Rider("quick", 1)} | riders_of([10] * 5)
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
    while isinstance(wave.step(0.0), Send):
        pass
    for name in "abc":
        wave.credit(name, 10**9)
        wave.credit(name, 0)
    assert set(wave.seen.values()) == {wave.sent}
    assert wave.step(0.0) == Send(wave.sent - 1)


@given(st.integers(1, 40), st.integers(1, SPAN))
@settings(max_examples=40, deadline=None)
def test_a_lost_word_delays_a_wave_and_turns_nobody_away(lost: int, span: int) -> None:
    riders = riders_of([1] * 5)
    took = ride(Wave(100, leaves_at=0.0, span=span), riders, lost)
    assert not any(rider.left for rider in riders.values())
    assert took < 100 * 1.5 * TURN_S + WORD_S + 1


def test_words_are_said_at_places_of_their_own_so_that_two_messages_are_on_their_way() -> None:
    """Not the whole window, from the first message on, where 40 riders are equally quick."""
    riders = riders_of([1] * 40)
    wave = Wave(400, leaves_at=0.0, span=SPAN)
    most, send = 0, wave.step
    wave.step = lambda now: _noted(send(now))  # type: ignore[method-assign]

    def _noted(action: Action) -> Action:
        nonlocal most
        if isinstance(action, Send):
            most = max(most, wave.sent - min(len(rider.got) for rider in riders.values()))
        return action

    ride(wave, riders)
    assert most == 2 * SPAN


@given(st.text(max_size=8), st.integers(0, 500), st.integers(1, 64))
def test_a_rider_speaks_again_before_it_gets_no_more(name: str, seen: int, every: int) -> None:
    assert seen < next_word(name, seen, every) <= seen + every
