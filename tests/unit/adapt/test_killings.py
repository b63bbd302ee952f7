"""Whether it was the kernel that ended a worker, for want of memory."""

from __future__ import annotations

import pytest

from agent.adapt.workload import Killings
from agent.sense import parse


@pytest.mark.parametrize(
    ("before", "after", "judged"),
    [(3, 4, True), (3, 3, False), (None, None, True), (None, 3, True), (3, None, True)],
)
def test_a_kill_is_the_kernels_where_its_count_grew_or_is_not_known(
    before: int | None, after: int | None, judged: bool
) -> None:
    killings = Killings()
    killings.began()
    assert not killings.take(before)
    killings.killed()
    assert killings.waiting
    assert killings.take(after) is judged
    assert not killings.waiting and not killings.take(after)


def test_what_the_kernel_counted_before_the_death_was_noticed_is_not_lost() -> None:
    killings = Killings()
    killings.began()
    killings.take(3)
    assert not killings.take(4), "nobody has died yet"
    killings.killed()
    assert killings.take(4)


def test_a_kill_of_before_says_nothing_of_the_next_worker() -> None:
    killings = Killings()
    killings.began()
    killings.take(3)
    killings.killed()
    killings.take(4)
    killings.began()
    killings.take(4)
    killings.killed()
    assert not killings.take(4)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b"nr_free_pages 5\noom_kill 47\nnuma_hit 1\n", 47),
        (b"oom_kill 0\n", 0),
        (b"drop_oom_kill 4\noom_kills 4\n", None),
        (b"", None),
        (b"oom_kill -1\n", None),
    ],
)
def test_the_kernels_count_is_read(text: bytes, count: int | None) -> None:
    assert parse.oom_kills(text) == count
