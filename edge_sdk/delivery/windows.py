"""Maintenance windows: when of the week something may happen, by the clock on the wall.

``"22:00-05:00"`` is every night, ``"Sat,Sun 00:00-24:00"`` the weekend, ``"Mon-Fri 1:30-4:00"`` on
working days. A window that ends before it begins goes on into the next day. Without any window
everything may happen at any time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.errors import ConfigError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
_FORM = re.compile(r"(?:([A-Za-z,-]+) +)?(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """A span on some days of the week."""

    days: frozenset[int]
    """0 is Monday; those on which it begins."""
    begins_min: int
    """Minutes after midnight."""
    lasts_min: int


def parse_window(text: str) -> Window:
    """A window as people write it.

    Raises:
        ConfigError: ``config.bad-window``.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise _bad(text)
    hour, minute, to_hour, to_minute = (int(part) for part in match.groups()[1:])
    begins, ends = hour * 60 + minute, to_hour * 60 + to_minute
    if begins >= DAY_MINUTES or ends > DAY_MINUTES or max(minute, to_minute) > 59:
        raise _bad(text)
    lasts = (ends - begins) % DAY_MINUTES or DAY_MINUTES
    return Window(_days(match[1] or "Mon-Sun", text), begins, lasts)


def opens_in_min(windows: Sequence[Window], weekday: int, minute: int) -> int:
    """Minutes until a window is open; 0 while one is, or where there are none.

    Args:
        windows: all that apply.
        weekday: 0 is Monday.
        minute: after midnight.
    """
    now = weekday * DAY_MINUTES + minute
    waits = [
        _wait(now, day * DAY_MINUTES + window.begins_min, window.lasts_min)
        for window in windows
        for day in window.days
    ]
    return min(waits, default=0)


def opens_in_words(windows: Sequence[Window], at: time.struct_time) -> str:
    """``on Sat at 22:00``, when the next window opens; empty while one is open.

    Args:
        windows: all that apply.
        at: local time.
    """
    minute = at.tm_hour * 60 + at.tm_min
    wait = opens_in_min(windows, at.tm_wday, minute)
    if not wait:
        return ""
    day, opens = divmod(at.tm_wday * DAY_MINUTES + minute + wait, DAY_MINUTES)
    return f"on {DAYS[day % 7]} at {opens // 60:02}:{opens % 60:02}"


def _wait(now: int, begins: int, lasts: int) -> int:
    """Minutes until a weekly span is open; 0 within it."""
    return 0 if (now - begins) % WEEK_MINUTES < lasts else (begins - now) % WEEK_MINUTES


def _days(text: str, whole: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            begin, end = (DAYS.index(name.capitalize()) for name in (first, last or first))
        except ValueError:
            raise _bad(whole) from None
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)


def _bad(text: str) -> ConfigError:
    return ConfigError(
        "bad-window",
        f"{text[:80]!r} is not a maintenance window.",
        "Write it as '22:00-05:00' or 'Sat,Sun 00:00-24:00', in local time.",
    )
