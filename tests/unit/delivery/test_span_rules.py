"""What a broker keeps of a blob, and what of it is asked for next."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.delivery.spans import MANY_DEVICES, MIN_SPANS, for_fleet, messages, next_span
from edge_sdk.delivery.wave import SPAN

AMPLE = BrokerReport(max_payload_bytes=SPAN * CHUNK_BYTES)


def test_spans_are_for_large_fleets_on_brokers_that_take_them() -> None:
    assert for_fleet(AMPLE, MANY_DEVICES).span == SPAN
    assert for_fleet(AMPLE, MANY_DEVICES - 1).span == 1
    for poor in (
        BrokerReport(),
        BrokerReport(max_payload_bytes=CHUNK_BYTES),
        BrokerReport(max_payload_bytes=SPAN * CHUNK_BYTES, retained=False),
    ):
        assert for_fleet(poor, 10 * MANY_DEVICES) == poor


@given(chunks=st.integers(0, 70), span=st.integers(1, 64))
def test_every_chunk_is_kept_once_alone_and_once_in_a_span(chunks: int, span: int) -> None:
    kept = list(messages(chunks, span))
    alone = [index for index, count in kept if count == 1]
    assert alone == list(range(chunks))
    spans = [index for index, count in kept if count > 1]
    if span == 1 or chunks < MIN_SPANS * span:
        assert not spans
    else:
        assert [i for first in spans for i in range(first, min(first + span, chunks))] == alone


@given(
    chunks=st.integers(1, 40),
    span=st.integers(1, 64),
    waiting=st.data(),
)
def test_a_span_is_asked_for_when_all_of_it_is_wanted_next(
    chunks: int, span: int, waiting: st.DataObject
) -> None:
    wanted = waiting.draw(st.lists(st.integers(0, chunks - 1), min_size=1, unique=True))
    queue = deque(("d", index) for index in sorted(wanted))
    kept = set(messages(chunks, span))
    asked: list[int] = []
    while queue:
        first, taken = queue[0][1], next_span(queue, chunks, span)
        assert (first, taken) in kept
        for index in range(first, min(first + taken, chunks)):
            assert queue.popleft() == ("d", index)
            asked.append(index)
    assert asked == sorted(wanted)
