"""Whom a machine believes: the public keys that release and fleet signatures are checked with."""

from __future__ import annotations

import msgspec

from edge_sdk.contracts.base import SCHEMA, Wire


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
