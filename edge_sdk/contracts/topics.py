"""MQTT topic layout, one tenant prefix per fleet.

MQTT 3.1.1 is the baseline; retained messages carry desired states, twins, chunks and metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_sdk.errors import ConfigError

SEGMENT_CHUNKS = 16
"""Chunks per segment topic level, so that one subscription can ask for several."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INDEX = re.compile(r"[0-9]{1,9}")
_SPAN = re.compile(r"x[0-9]{1,2}")


def check_name(value: str, what: str) -> str:
    """A tenant, device or release name that is safe in topics, paths and URLs.

    Raises:
        ConfigError: ``config.bad-name``.
    """
    if not _NAME.fullmatch(value) or ".." in value:
        raise ConfigError(
            "bad-name",
            f"{what} {value!r} is not a usable name.",
            "Use 1 to 64 letters, digits, dots, dashes and underscores, starting with a letter "
            "or digit.",
        )
    return value


@dataclass(frozen=True, slots=True)
class Topics:
    """Builds and reads the topics of one tenant."""

    tenant: str

    def __post_init__(self) -> None:
        check_name(self.tenant, "tenant")

    def desired(self, device_id: str) -> str:
        """Retained, signed :class:`~edge_sdk.contracts.update.Desired`."""
        return f"{self.tenant}/dev/{device_id}/desired"

    def state(self, device_id: str) -> str:
        """Retained :class:`~edge_sdk.contracts.update.DeviceState`; also the last will."""
        return f"{self.tenant}/dev/{device_id}/state"

    def ota(self, device_id: str) -> str:
        """:class:`~edge_sdk.contracts.update.UpdateStatus` events."""
        return f"{self.tenant}/dev/{device_id}/ota"

    def telemetry(self, device_id: str) -> str:
        """:class:`~edge_sdk.contracts.telemetry.TelemetrySample`."""
        return f"{self.tenant}/dev/{device_id}/tel"

    def results(self, device_id: str, pipeline: str) -> str:
        """:class:`~edge_sdk.contracts.telemetry.ResultBatch`."""
        return f"{self.tenant}/dev/{device_id}/out/{pipeline}"

    def request(self, device_id: str) -> str:
        """:class:`~edge_sdk.contracts.update.ChunkRequest`."""
        return f"{self.tenant}/dev/{device_id}/req"

    def chunk(self, digest: str, index: int, span: int = 1) -> str:
        """Retained bytes of one chunk; ``x4`` in place of the segment for four from this one on."""
        level = f"x{span}" if span > 1 else str(index // SEGMENT_CHUNKS)
        return f"{self.tenant}/b/{digest}/{level}/{index}"

    def wave(self, digest: str, index: int) -> str:
        """Chunks from this one on, for every device that rides a wave; not retained."""
        return f"{self.tenant}/m/{digest}/{index}"

    def wave_notice(self, digest: str) -> str:
        """:class:`~edge_sdk.contracts.delivery.WaveNotice` to the riders."""
        return f"{self.tenant}/m/{digest}/notice"

    def wave_riders(self, digest: str) -> str:
        """Subscription to everything about one wave."""
        return f"{self.tenant}/m/{digest}/+"

    def credit(self, device_id: str) -> str:
        """:class:`~edge_sdk.contracts.delivery.WaveCredit`."""
        return f"{self.tenant}/dev/{device_id}/credit"

    def ask_time(self, device_id: str) -> str:
        """:class:`~edge_sdk.contracts.trust.TimeRequest`."""
        return f"{self.tenant}/dev/{device_id}/ask"

    def time(self, device_id: str) -> str:
        """Signed :class:`~edge_sdk.contracts.trust.TimeAttestation`."""
        return f"{self.tenant}/dev/{device_id}/time"

    def tuf_head(self) -> str:
        """Retained :class:`~edge_sdk.contracts.trust.TufHead`."""
        return f"{self.tenant}/tuf/head"

    def tuf_timestamp(self) -> str:
        """Retained TUF timestamp metadata, the newest."""
        return f"{self.tenant}/tuf/timestamp"

    def tuf(self, role: str, version: int) -> str:
        """Retained TUF root, snapshot or targets metadata of one version."""
        return f"{self.tenant}/tuf/{role}/{version}"

    def broker(self) -> str:
        """Retained :class:`~edge_sdk.contracts.delivery.BrokerReport`."""
        return f"{self.tenant}/broker"

    def probe(self, nonce: str, leaf: str) -> str:
        """What the server finds out with what its broker can do."""
        return f"{self.tenant}/probe/{nonce}/{leaf}"

    def want(self, device_id: str) -> str:
        """:class:`~edge_sdk.contracts.delivery.TopicRequest`."""
        return f"{self.tenant}/dev/{device_id}/want"

    def response(self, device_id: str, part: int, parts: int, topic: str) -> str:
        """One of ``parts`` pieces of what is kept for ``topic``, for this device alone."""
        return f"{self.tenant}/dev/{device_id}/rsp/{part}/{parts}/{self.below(topic)}"

    def responses(self, device_id: str) -> str:
        """Subscription to every answer to this device."""
        return f"{self.tenant}/dev/{device_id}/rsp/#"

    def below(self, topic: str) -> str:
        """A topic without the tenant's prefix."""
        return topic.removeprefix(f"{self.tenant}/")

    def every_device(self, leaf: str) -> str:
        """Subscription to one kind of message of all devices."""
        return f"{self.tenant}/dev/+/{leaf}"

    def parse_chunk(self, topic: str) -> tuple[str, int] | None:
        """``(digest, index)`` of a chunk topic, or None for any other topic."""
        parts = topic.split("/")
        if len(parts) != 5 or parts[:2] != [self.tenant, "b"] or not _INDEX.fullmatch(parts[4]):
            return None
        index = int(parts[4])
        return (parts[2], index) if topic == self.chunk(parts[2], index) else None

    def parse_span(self, topic: str) -> tuple[str, int, int] | None:
        """``(digest, index, span)`` of a span's topic, or None for any other topic."""
        parts = topic.split("/")
        if len(parts) != 5 or not _SPAN.fullmatch(parts[3]) or not _INDEX.fullmatch(parts[4]):
            return None
        digest, index, span = parts[2], int(parts[4]), int(parts[3][1:])
        return (digest, index, span) if topic == self.chunk(digest, index, span) else None

    def carries_chunks(self, topic: str) -> bool:
        """Whether a topic is that of a chunk or of a span."""
        return self.parse_chunk(topic) is not None or self.parse_span(topic) is not None

    def parse_wave(self, topic: str) -> tuple[str, int | None] | None:
        """``(digest, index)`` of a wave's topic, None as index of a notice; None for others."""
        parts = topic.split("/")
        if len(parts) != 4 or parts[:2] != [self.tenant, "m"]:
            return None
        if parts[3] == "notice":
            return parts[2], None
        return (parts[2], int(parts[3])) if _INDEX.fullmatch(parts[3]) else None

    def parse_response(self, device_id: str, topic: str) -> tuple[int, int, str] | None:
        """``(part, parts, topic)`` of an answer to this device, or None for any other topic."""
        head = f"{self.tenant}/dev/{device_id}/rsp/"
        if not topic.startswith(head):
            return None
        part, _, rest = topic.removeprefix(head).partition("/")
        parts, _, below = rest.partition("/")
        if not (_INDEX.fullmatch(part) and _INDEX.fullmatch(parts) and below):
            return None
        return int(part), int(parts), f"{self.tenant}/{below}"

    def parse_device(self, topic: str) -> tuple[str, str] | None:
        """``(device_id, leaf)`` of a device topic, or None for any other topic."""
        parts = topic.split("/", 3)
        if len(parts) != 4 or parts[:2] != [self.tenant, "dev"] or not _NAME.fullmatch(parts[2]):
            return None
        return parts[2], parts[3]
