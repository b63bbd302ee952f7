"""Spans: consecutive chunks that a broker keeps in one message, besides each of them in its own.

What a message costs a broker beyond its bytes, and what it costs to be asked for it, is the same
for one chunk and for four. An interruption, however, loses half a message in the mean. So spans are
for fleets where the broker has much to do, and for devices that have not been interrupted.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec.structs import replace

from edge_sdk.contracts.delivery import BrokerReport
from edge_sdk.contracts.manifest import CHUNK_BYTES
from edge_sdk.delivery.wave import SPAN

MANY_DEVICES = 100
"""With fewer the broker has little to do, and need not keep every blob twice."""
MIN_SPANS = 2
"""A blob of fewer is not worth keeping twice."""


def for_fleet(report: BrokerReport, devices: int) -> BrokerReport:
    """The report with the span that suits a fleet of this size."""
    fits = report.retained and report.max_payload_bytes >= SPAN * CHUNK_BYTES
    return replace(report, span=SPAN if fits and devices >= MANY_DEVICES else 1)


def firsts(chunks: int, span: int) -> range:
    """The first chunk of each span of a blob; none where it has no spans. The last may be short."""
    worth_it = span > 1 and chunks >= MIN_SPANS * span
    return range(0, chunks, span) if worth_it else range(0)


def messages(chunks: int, span: int) -> Iterator[tuple[int, int]]:
    """Everything that a broker keeps of a blob: index and span of each message, spans first."""
    yield from ((index, span) for index in firsts(chunks, span))
    yield from ((index, 1) for index in range(chunks))


def next_span(waiting: Sequence[tuple[str, int]], chunks: int, span: int) -> int:
    """The span to ask for next, 1 for a single chunk.

    Args:
        waiting: digest and index of what is wanted, in this order; not empty.
        chunks: of the first one's blob.
        span: of which the broker keeps messages.
    """
    digest, first = waiting[0]
    if first not in firsts(chunks, span):
        return 1
    whole = [(digest, index) for index in range(first, min(first + span, chunks))]
    return span if list(islice(waiting, len(whole))) == whole else 1
