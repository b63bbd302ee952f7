"""Several chunks in one retained message: asked for while all goes well, and trusted in nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.update.limits import UpdateLimits
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.update import Phase
from edge_sdk.delivery.wave import SPAN
from tests.fakes.updating import TOPICS, Rig, desired_bytes, tiny_release

CHUNKS = 22
V1 = tiny_release("1", size=CHUNKS * CHUNK_BYTES - 1000)
LARGE = max(V1.blobs, key=lambda digest: len(V1.blobs[digest]))
TOTAL = sum(len(data) for _, data in V1.everything)
SPANS = list(range(0, CHUNKS, SPAN))


def span_topic(first: int) -> str:
    return TOPICS.chunk(LARGE, first, SPAN)


def rig_with(folder: Path, report: BrokerReport | None = None, **limits: object) -> Rig:
    rig = Rig(folder)
    rig.limits = UpdateLimits(disk_margin_bytes=0, **limits)  # type: ignore[arg-type]
    rig.publish(V1)
    rig.broker.seed_blobs(V1.everything, span=SPAN)
    told = report or BrokerReport(max_payload_bytes=SPAN * CHUNK_BYTES, span=SPAN)
    rig.broker.retained[TOPICS.broker()] = encode(told)
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    return rig


def begun(folder: Path) -> Rig:
    """A device that has taken the first spans, and waits for more."""
    rig = rig_with(folder)
    rig.reach(Phase.DOWNLOADING)
    while not spans_asked(rig):
        rig.turn()
    rig.turn()
    return rig


def spans_asked(rig: Rig) -> list[int]:
    return [first for first in SPANS if rig.link.asked[span_topic(first)]]


def chunks_asked(rig: Rig) -> list[int]:
    return [index for index in range(CHUNKS) if rig.link.asked[TOPICS.chunk(LARGE, index)]]


def test_a_blob_comes_in_spans_as_many_bytes_at_a_time(tmp_path: Path) -> None:
    rig = rig_with(tmp_path)
    assert rig.settle().phase is Phase.COMMITTED
    assert spans_asked(rig) == SPANS
    assert chunks_asked(rig) == []
    assert rig.received == TOTAL
    assert rig.broker.requests == []
    assert not rig.link.chunks


@pytest.mark.parametrize(
    ("report", "limits"),
    [
        (BrokerReport(max_payload_bytes=SPAN * CHUNK_BYTES), {}),
        (BrokerReport(span=SPAN), {"max_bytes_per_s": 100 * CHUNK_BYTES}),
        (BrokerReport(span=SPAN), {"window": SPAN - 1}),
        (BrokerReport(span=64), {}),
    ],
    ids=["of a small fleet", "a bounded rate", "a small window", "a report that lies"],
)
def test_where_spans_do_not_suit_chunks_are_asked_for(
    tmp_path: Path, report: BrokerReport, limits: dict[str, int]
) -> None:
    rig = rig_with(tmp_path, report, **limits)
    assert rig.settle().phase is Phase.COMMITTED
    assert spans_asked(rig) == []
    assert chunks_asked(rig) == list(range(CHUNKS))
    assert rig.received == TOTAL


@pytest.mark.parametrize("span", [0, 65, 10**9])
def test_a_report_of_an_absurd_span_is_not_believed(tmp_path: Path, span: int) -> None:
    rig = Rig(tmp_path)
    rig.publish(V1)
    rig.boot()
    rig.link.receive(TOPICS.broker(), b'{"span": %d}' % span)
    rig.want(desired_bytes(V1, 1))
    assert rig.settle().phase is Phase.COMMITTED
    assert not any("/x" in topic for topic in rig.link.asked)


def test_after_an_interruption_the_rest_comes_chunk_by_chunk(tmp_path: Path) -> None:
    rig = begun(tmp_path)
    rig.link.drop()
    rig.updater.on_disconnected()
    before = rig.link.asked.copy()
    rig.turn()
    rig.connect()
    assert rig.settle().phase is Phase.COMMITTED
    assert all(rig.link.asked[span_topic(first)] == before[span_topic(first)] for first in SPANS)
    assert chunks_asked(rig)
    assert rig.received == TOTAL


def test_so_it_does_after_a_restart(tmp_path: Path) -> None:
    rig = begun(tmp_path)
    held = rig.received
    rig.boot()
    assert rig.settle().phase is Phase.COMMITTED
    assert spans_asked(rig) == []
    assert 0 < len(chunks_asked(rig)) < CHUNKS
    assert held > 0


@pytest.mark.parametrize("kept", [True, False])
def test_spans_that_do_not_come_cost_a_wait_and_no_update(tmp_path: Path, kept: bool) -> None:
    """Whether the broker has the chunks themselves, or the server must send them again."""
    rig = Rig(tmp_path)
    rig.publish(V1)
    if not kept:
        for index in range(CHUNKS):
            del rig.broker.retained[TOPICS.chunk(LARGE, index)]
    rig.broker.retained[TOPICS.broker()] = encode(BrokerReport(span=SPAN))
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    rig.reach(Phase.DOWNLOADING)
    rig.turn()
    assert spans_asked(rig) == [0, SPAN]  # a window of eight chunks
    rig.link.receive(span_topic(0), b"")  # as when somebody clears it
    assert rig.settle(3000).phase is Phase.COMMITTED
    assert spans_asked(rig) == [0, SPAN]
    assert bool(rig.broker.requests) is not kept


@given(
    wrong=st.sets(st.integers(0, CHUNKS - 1), min_size=1),
    cut=st.integers(0, 2 * CHUNK_BYTES),
    longer=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_of_a_poisoned_span_what_is_right_is_kept_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, wrong: set[int], cut: int, longer: bool
) -> None:
    """Somebody else publishes spans: wrong chunks, too few bytes, bytes beyond the end."""
    rig = Rig(tmp_path_factory.mktemp("device"))
    rig.publish(V1)
    rig.broker.seed_blobs(V1.everything, span=SPAN)
    data = bytearray(V1.blobs[LARGE])
    for index in wrong:
        data[index * CHUNK_BYTES] ^= 1
    for first in SPANS:
        span = bytes(data[first * CHUNK_BYTES : (first + SPAN) * CHUNK_BYTES])
        span = span + b"?" * cut if longer else span[: len(span) - cut]
        rig.broker.retained[span_topic(first)] = span
    rig.broker.retained[TOPICS.broker()] = encode(BrokerReport(span=SPAN))
    rig.boot()
    rig.want(desired_bytes(V1, 1))
    assert rig.settle(3000).phase is Phase.COMMITTED
    assert wrong & set(chunks_asked(rig))
    first_wrong = 0 if cut and not longer else min(wrong) // SPAN
    assert len(spans_asked(rig)) <= first_wrong + 2  # one was on its way
    whole = (rig.folder / "blobs" / LARGE).read_bytes()
    assert whole == V1.blobs[LARGE]


def test_a_span_of_a_blob_that_is_not_wanted_is_counted_and_dropped(tmp_path: Path) -> None:
    rig = begun(tmp_path)
    rig.link.subscribed.add(TOPICS.chunk("f" * 64, 0, SPAN))
    rig.link.receive(TOPICS.chunk("f" * 64, 0, SPAN), bytes(SPAN * CHUNK_BYTES))
    assert rig.settle().phase is Phase.COMMITTED
    assert rig.received == TOTAL + SPAN * CHUNK_BYTES
