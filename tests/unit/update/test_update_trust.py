"""No altered document is ever accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.update.trust import accept_desired, accept_manifest
from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.signing import add_signature, sign
from edge_sdk.bundle.trust import trust_root, verify_manifest
from edge_sdk.contracts.base import decode, encode
from edge_sdk.contracts.envelope import DESIRED_TYPE, MANIFEST_TYPE, Envelope
from edge_sdk.contracts.update import Desired
from edge_sdk.errors import EdgeError
from tests.fakes.updating import (
    DEVICE,
    FLEET_KEY,
    OTHER_KEY,
    RELEASE_KEY,
    TRUST,
    desired_bytes,
    tiny_release,
)

RELEASE = tiny_release("1", size=100)
WISH = desired_bytes(RELEASE, 1)
DESIRED = accept_desired(WISH, TRUST, DEVICE.device_id)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(WISH) * 8 - 1))
def test_a_flipped_bit_never_changes_a_wish(bit: int) -> None:
    try:
        accepted = accept_desired(flipped(WISH, bit), TRUST, DEVICE.device_id)
    except EdgeError:
        return
    assert accepted == DESIRED  # e.g. in the spelling of an unknown field: nothing that is signed


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(RELEASE.envelope) * 8 - 1))
def test_a_flipped_bit_never_changes_a_manifest(bit: int) -> None:
    changed = flipped(RELEASE.envelope, bit)
    with pytest.raises(EdgeError):
        accept_manifest(changed, TRUST, DESIRED, DEVICE)
    try:
        manifest = verify_manifest(changed, TRUST)
    except EdgeError:
        return
    assert manifest == RELEASE.manifest


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_garbage_is_refused_with_a_code(data: bytes) -> None:
    for accept in (
        lambda: accept_desired(data, TRUST, DEVICE.device_id),
        lambda: verify_manifest(data, TRUST),
    ):
        with pytest.raises(EdgeError) as caught:
            accept()
        assert "." in caught.value.code


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=10,
    )
)
def test_signed_nonsense_is_refused_too(value: object) -> None:
    """A right signature does not make a manifest of arbitrary JSON."""
    import msgspec

    payload = msgspec.json.encode(value)
    with pytest.raises(EdgeError):
        verify_manifest(encode(sign(MANIFEST_TYPE, payload, RELEASE_KEY)), TRUST)
    with pytest.raises(EdgeError):
        wish = encode(sign(DESIRED_TYPE, payload, FLEET_KEY))
        accept_desired(wish, TRUST, DEVICE.device_id)


def code(data: bytes, desired: Desired = DESIRED) -> str:
    with pytest.raises(EdgeError) as caught:
        accept_manifest(data, TRUST, desired, DEVICE)
    return caught.value.code


def test_the_fleet_key_cannot_sign_releases_nor_the_release_key_wishes() -> None:
    fleet_signed = tiny_release("1", size=100, key=FLEET_KEY)
    with pytest.raises(EdgeError, match="bad-signature"):
        verify_manifest(fleet_signed.envelope, TRUST)
    with pytest.raises(EdgeError, match="bad-signature"):
        accept_desired(desired_bytes(RELEASE, 1, key=RELEASE_KEY), TRUST, DEVICE.device_id)


def test_a_manifest_signature_does_not_carry_over_to_a_wish() -> None:
    root = trust_root([RELEASE_KEY.public], [RELEASE_KEY.public])
    envelope = decode(desired_bytes(RELEASE, 1), Envelope, "wish")
    disguised = sign(MANIFEST_TYPE, envelope.payload, RELEASE_KEY)
    renamed = Envelope(
        payloadType=DESIRED_TYPE, payload=disguised.payload, signatures=disguised.signatures
    )
    with pytest.raises(EdgeError, match="bad-signature"):
        accept_desired(encode(renamed), root, DEVICE.device_id)


def test_another_release_under_the_wished_name_is_refused() -> None:
    other = tiny_release("2", size=100)
    assert code(other.envelope) == "trust.blob-damaged"
    lying = decode(encode(DESIRED), Desired, "copy")
    lying = Desired(
        device_id=lying.device_id,
        deployment=lying.deployment,
        counter=lying.counter,
        release="digits",
        version="1",
        manifest=blob_ref(other.envelope),
    )
    assert code(other.envelope, lying) == "trust.other-release"


def test_two_of_two_signatures() -> None:
    root = trust_root([RELEASE_KEY.public, OTHER_KEY.public], [], release_threshold=2)
    with pytest.raises(EdgeError, match="bad-signature"):
        verify_manifest(RELEASE.envelope, root)
    once = decode(RELEASE.envelope, Envelope, "envelope")
    doubled = Envelope(
        payloadType=once.payloadType, payload=once.payload, signatures=once.signatures * 2
    )
    with pytest.raises(EdgeError, match="1 of 2 required"):
        verify_manifest(encode(doubled), root)
    both = add_signature(once, OTHER_KEY)
    assert verify_manifest(encode(both), root) == RELEASE.manifest
