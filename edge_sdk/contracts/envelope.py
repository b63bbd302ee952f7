"""Signed envelopes, after DSSE v1 (Dead Simple Signing Envelope).

The signature covers the payload's bytes and its type, never a re-encoding of them, so there is no
canonical form to get wrong. Signing and verifying live in :mod:`edge_sdk.bundle.signing`.
"""

from __future__ import annotations

from edge_sdk.contracts.base import Wire

MANIFEST_TYPE = "application/vnd.edge-sdk.manifest+json"
DESIRED_TYPE = "application/vnd.edge-sdk.desired+json"
TIME_TYPE = "application/vnd.edge-sdk.time+json"


class Signature(Wire, kw_only=True):
    """One signature over an envelope's pre-authentication encoding."""

    keyid: str
    """First 16 hexadecimal digits of the SHA-256 of the raw public key."""
    sig: bytes
    """Ed25519 signature, 64 bytes; base64 in JSON."""


class Envelope(Wire, kw_only=True):
    """A payload with its signatures."""

    payloadType: str  # noqa: N815 - the name is DSSE's
    payload: bytes
    """The signed document's bytes; base64 in JSON."""
    signatures: tuple[Signature, ...]


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed: ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
