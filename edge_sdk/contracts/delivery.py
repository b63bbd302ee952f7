"""How bytes get from the server to devices: what the broker can do, and what is asked for."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from edge_sdk.contracts.base import SCHEMA, Wire
from edge_sdk.contracts.telemetry import Count

MAX_TOPICS_PER_REQUEST = 64
MAX_TOPIC_CHARACTERS = 200


class DeliveryMode(StrEnum):
    """Where a device's chunks come from."""

    WINDOW = "window"
    """Retained messages on the broker, a few at a time."""
    RESPONSE = "response"
    """The server, which answers each request on a topic of the device's own."""


class BrokerReport(Wire, kw_only=True):
    """What the server found its broker to be able to do; retained, unsigned.

    A lie in it can only make updates slow, which whoever runs the broker can do anyway.
    """

    schema: int = SCHEMA
    retained: bool = True
    """A later subscriber is given the message that the broker keeps for a topic."""
    wildcard_retained: bool = True
    """So is one who subscribes with a wildcard."""
    max_payload_bytes: Annotated[int, Meta(ge=0)] = 0
    """The largest payload that was tried and came back; 0 when that is not known."""
    gather_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """A device that begins a larger transfer waits this long for a wave; 0 for no waves."""
    span: Annotated[int, Meta(ge=1, le=64)] = 1
    """Blobs of several times as many chunks are kept a second time, with so many in a message; 1
    where they are not. Agents of earlier versions do not know it."""
    credit_every: Annotated[int, Meta(ge=1, le=64)] = 4
    """A rider of a wave says how far it is after so many chunks."""
    problem: str = ""
    """Why the broker could not be probed; what is said above is then an assumption."""


class WaveCredit(Wire, kw_only=True):
    """A device wants to ride the wave of a blob, or says how far it has come."""

    schema: int = SCHEMA
    device_id: str
    digest: str
    seen: Count = 0
    """Chunks of the wave that have gone by, arrived or not: the last index and one; 0 to join."""
    span: Annotated[int, Meta(ge=1, le=64)] = 1
    """Consecutive chunks that this device takes in one message."""


class WaveNotice(Wire, kw_only=True):
    """What a wave's riders are told."""

    schema: int = SCHEMA
    over: bool = False
    """Nothing more will come; what is missing is to be had the usual way."""
    leave: tuple[str, ...] = ()
    """Devices that are too slow for this wave."""


class TopicRequest(Wire, kw_only=True):
    """A device names topics whose kept messages it cannot get from the broker.

    Each is answered on a topic of the device's own; an empty answer says that there is none.
    """

    schema: int = SCHEMA
    device_id: str
    topics: tuple[Annotated[str, Meta(max_length=MAX_TOPIC_CHARACTERS)], ...]
    """Below the tenant's prefix, at most 64."""
