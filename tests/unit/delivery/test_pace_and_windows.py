"""Bounds on rate, pauses between attempts, and maintenance windows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.delivery.pace import BURST_S, Pace, backoff_s
from edge_sdk.delivery.windows import (
    DAY_MINUTES,
    DAYS,
    WEEK_MINUTES,
    Window,
    opens_in_min,
    parse_window,
)
from edge_sdk.errors import ConfigError


@given(
    st.floats(1e3, 1e7),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 65536)), min_size=1, max_size=60),
)
@settings(max_examples=60)
def test_no_span_of_time_lets_more_through_than_its_share(
    rate: float, turns: list[tuple[float, int]]
) -> None:
    pace, now = Pace(rate), 0.0
    asked: list[tuple[float, int]] = []
    for pause, size in turns:
        now += pause
        if pace.allows(now):
            pace.spend(size, now)
            asked.append((now, size))
    for first, (begin, _) in enumerate(asked):
        for last in range(first, len(asked)):
            end, size = asked[last]
            spent = sum(size for _, size in asked[first : last + 1])
            assert spent <= (end - begin + BURST_S) * rate + size + 1


@given(st.floats(1e3, 1e7))
@settings(max_examples=20)
def test_the_rate_is_used_up(rate: float) -> None:
    pace, sent = Pace(rate), 0
    for turn in range(2000):
        if pace.allows(turn / 10):
            pace.spend(4096, turn / 10)
            sent += 4096
    assert sent >= min(0.9 * rate * 200, 2000 * 4096)


def test_without_a_bound_everything_is_let_through() -> None:
    pace = Pace(0)
    for _ in range(100):
        assert pace.allows(0.0)
        pace.spend(1 << 30, 0.0)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_cap_and_scatter(attempts: int, chance: float) -> None:
    pause = backoff_s(attempts, 2.0, 30.0, chance)
    whole = min(2.0 * 2 ** min(attempts, 10), 30.0)
    assert whole / 2 <= pause <= whole
    if not attempts:
        assert pause == 2.0


windows = st.builds(
    Window,
    days=st.frozensets(st.integers(0, 6), min_size=1),
    begins_min=st.integers(0, DAY_MINUTES - 1),
    lasts_min=st.integers(1, DAY_MINUTES),
)


def minutes_open(each: Window) -> set[int]:
    """Minutes of the week, one by one."""
    return {
        (day * DAY_MINUTES + each.begins_min + minute) % WEEK_MINUTES
        for day in each.days
        for minute in range(each.lasts_min)
    }


@given(st.lists(windows, max_size=3), st.integers(0, WEEK_MINUTES - 1))
@settings(max_examples=50, deadline=None)
def test_the_next_opening_is_the_first_open_minute(several: list[Window], now: int) -> None:
    wait = opens_in_min(several, *divmod(now, DAY_MINUTES))
    if not several:
        assert wait == 0
        return
    is_open = set().union(*map(minutes_open, several))
    assert (now + wait) % WEEK_MINUTES in is_open
    assert not any((now + early) % WEEK_MINUTES in is_open for early in range(wait))


@given(windows)
@settings(max_examples=40)
def test_what_is_written_is_read(each: Window) -> None:
    days = ",".join(DAYS[day].lower() for day in sorted(each.days))
    ends = each.begins_min + each.lasts_min
    ends = ends if ends <= DAY_MINUTES else ends - DAY_MINUTES
    begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (each.begins_min, ends))
    assert parse_window(f"{days} {begin}-{end}") == each


@pytest.mark.parametrize(
    ("text", "days"),
    [("Fri-Mon 1:00-2:00", {4, 5, 6, 0}), ("22:00-05:00", set(range(7))), ("Sun 0:00-24:00", {6})],
)
def test_ways_to_write_days(text: str, days: set[int]) -> None:
    assert parse_window(text).days == days


@given(st.text(max_size=40) | st.from_regex(r"[A-z,-]{0,9} ?\d{1,2}:\d\d-\d{1,2}:\d\d"))
@settings(max_examples=40)
def test_any_text_is_a_window_or_a_clear_error(text: str) -> None:
    try:
        assert 0 < parse_window(text).lasts_min <= DAY_MINUTES
    except ConfigError as error:
        assert error.code == "config.bad-window"
