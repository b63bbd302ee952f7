"""Which way chunks take, and payloads in pieces."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.contracts.delivery import BrokerReport, DeliveryMode
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.contracts.topics import Topics
from edge_sdk.delivery.choice import choose, in_words, largest_payload
from edge_sdk.delivery.parts import MAX_HELD_BYTES, Assembly, split

reports = st.builds(
    BrokerReport,
    retained=st.booleans(),
    wildcard_retained=st.booleans(),
    max_payload_bytes=st.sampled_from((0, 4096, 16384, CHUNK_BYTES, 4 * CHUNK_BYTES)),
    problem=st.sampled_from(("", "no answer for 10 s")),
)


@given(st.none() | reports, st.none() | st.booleans())
def test_the_broker_keeps_chunks_unless_something_speaks_against_it(
    report: BrokerReport | None, kept: bool | None
) -> None:
    choice = choose(report, kept)
    against = report is not None and (
        not report.retained or kept is False or largest_payload(report) is not None
    )
    assert (choice.mode is DeliveryMode.RESPONSE) == against
    assert choice.reason


@given(reports)
def test_a_report_is_told_in_words(report: BrokerReport) -> None:
    words = in_words(report)
    assert report.problem in words
    if not report.problem and report.max_payload_bytes:
        assert str(report.max_payload_bytes) in words


@given(st.binary(max_size=5000), st.none() | st.integers(1, 700), st.randoms())
@settings(max_examples=60)
def test_pieces_in_any_order_and_repeated_make_the_payload(
    payload: bytes, limit: int | None, chance: random.Random
) -> None:
    pieces = list(split(payload, limit))
    assert all(limit is None or len(piece) <= limit for _, _, piece in pieces)
    pieces = pieces[:-1] + pieces  # all but one twice
    chance.shuffle(pieces)
    assembly = Assembly()
    results = [assembly.take("a", *piece) for piece in pieces]
    whole = [result for result in results if result is not None]
    assert whole[0] == payload
    assert set(whole) == {payload}


def test_pieces_of_different_payloads_do_not_mix() -> None:
    assembly = Assembly()
    assert assembly.take("a", 0, 2, b"1") is None
    assert assembly.take("b", 1, 2, b"2") is None
    assert assembly.take("a", 1, 3, b"of another cut") is None
    assert assembly.take("a", 1, 2, b"2") == b"12"


def test_unfinished_payloads_are_bounded() -> None:
    assembly = Assembly()
    piece = bytes(1 << 20)
    for name in range(100):
        assert assembly.take(str(name), 0, 2, piece) is None
        assert assembly._bytes <= MAX_HELD_BYTES
    assert assembly.take("99", 1, 2, b"") == piece
    for part, parts in ((2, 2), (-1, 2), (0, 0), (0, 1 << 30)):
        assert assembly.take("x", part, parts, b"") is None


@given(st.text("abc/0123456789rsp", max_size=60))
def test_only_answers_are_read_as_answers(below: str) -> None:
    topics = Topics("t1")
    for topic in (below, f"t1/{below}", f"t1/dev/cam-1/{below}", f"t1/dev/cam-1/rsp/{below}"):
        parsed = topics.parse_response("cam-1", topic)
        if parsed is not None:
            assert topics.response("cam-1", *parsed) == topic or topic.split("/")[4][0] == "0"
    topic = topics.response("cam-1", 3, 9, "t1/tuf/head")
    assert topics.parse_response("cam-1", topic) == (3, 9, "t1/tuf/head")
    assert topics.parse_response("cam-2", topic) is None
