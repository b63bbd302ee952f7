"""Which way chunks take, given what the broker was found to be able to do."""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.contracts.delivery import BrokerReport, DeliveryMode
from edge_sdk.contracts.manifest import CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class Choice:
    """A way, and why it was chosen."""

    mode: DeliveryMode
    reason: str

    def __str__(self) -> str:
        return f"{self.mode}: {self.reason}"


def choose(report: BrokerReport | None, kept: bool | None) -> Choice:
    """The way for one device, or, without ``kept``, for the fleet as a whole.

    Retained messages are the first choice, since the broker then carries each chunk in once; asking
    the server costs the broker several times as much.

    Args:
        report: what the server found; None before it has said so.
        kept: whether the report itself reached this device as a retained message; None when that
            is not known. Nodes of a cluster may keep retained messages each for themselves.
    """
    if report is None:
        return Choice(DeliveryMode.WINDOW, "the server has not said yet what the broker can do")
    if too_small(report):
        limit = f"the broker takes no more than {report.max_payload_bytes} bytes in a message"
        return Choice(DeliveryMode.RESPONSE, limit)
    if not report.retained:
        return Choice(DeliveryMode.RESPONSE, "the broker keeps no retained messages")
    if kept is False:
        return Choice(
            DeliveryMode.RESPONSE, "what the server has the broker keep does not reach this device"
        )
    if report.problem:
        return Choice(DeliveryMode.WINDOW, f"the broker could not be probed: {report.problem}")
    return Choice(DeliveryMode.WINDOW, "the broker keeps retained messages of a chunk's size")


def too_small(report: BrokerReport) -> bool:
    """Whether the broker is known to refuse messages of a chunk's size."""
    return 0 < report.max_payload_bytes < CHUNK_BYTES


def largest_payload(report: BrokerReport | None) -> int | None:
    """Bytes a message may have; None when no bound is known that matters."""
    return report.max_payload_bytes if report is not None and too_small(report) else None


def in_words(report: BrokerReport) -> str:
    """The report as a sentence for a person."""
    if report.problem:
        return f"could not be probed ({report.problem})"
    kept = "kept" if report.retained else "not kept"
    if report.retained and not report.wildcard_retained:
        kept += ", though not for wildcards"
    at_least = "up to" if too_small(report) else "of at least"
    size = f"{at_least} {report.max_payload_bytes} bytes" if report.max_payload_bytes else "refused"
    return f"retained messages are {kept}, payloads {size}"
