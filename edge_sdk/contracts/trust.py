"""Whom a machine believes: the public keys that release and fleet signatures are checked with."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_sdk.contracts.base import SCHEMA, Wire

NONCE_BYTES = 16
Version = Annotated[int, Meta(ge=0, le=2**53)]
"""Of metadata; 0 for none."""


class TrustRoot(Wire, kw_only=True):
    """``trust.json``, placed on a device when it is provisioned.

    Two roles, so that a stolen fleet server can only choose among releases that their publisher
    has signed, and a stolen release key reaches no device without the fleet's consent.
    """

    schema: int = SCHEMA
    release_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    """Key id to raw Ed25519 public key (32 bytes; base64 in JSON): who may sign manifests."""
    release_threshold: int = 1
    """How many different release keys must have signed a manifest."""
    fleet_keys: dict[str, bytes] = msgspec.field(default_factory=dict)
    """Who may tell a device what to run; one signature is enough."""
    root: bytes = b""
    """TUF root metadata, as it was signed. With it every release must be named by the targets of
    its repository, fleet keys are those that the newest root names, and the key lists above are
    not used."""


class TufHead(Wire, kw_only=True):
    """Which metadata is the newest; unsigned, since a lie in it can only delay, and expiry tells.

    It says at once that there is *no* newer root, where a broker would say nothing at all.
    """

    schema: int = SCHEMA
    root: Version
    timestamp: Version
    targets: Version


class TimeRequest(Wire, kw_only=True):
    """A device asks its fleet for the time."""

    schema: int = SCHEMA
    device_id: str
    nonce: bytes
    """16 random bytes, used once; base64 in JSON."""


class TimeAttestation(Wire, kw_only=True):
    """The answer, in an envelope signed by the fleet key."""

    schema: int = SCHEMA
    device_id: str
    nonce: bytes
    """The request's: an old answer fits no new question."""
    at: float
    """Seconds since the epoch, the server's clock."""
