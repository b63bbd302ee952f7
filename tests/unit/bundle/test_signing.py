"""Signatures and keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.bundle.signing import (
    MAX_SIGNATURES,
    SigningKey,
    add_signature,
    generate_key,
    keyid,
    load_key,
    load_public,
    public_path,
    save_key,
    sign,
    signers,
    verify,
)
from edge_sdk.contracts.envelope import Envelope, Signature, pre_authentication_encoding
from edge_sdk.errors import EdgeError, StorageError, TrustError

KEY, OTHER = generate_key(), generate_key()
KEYS = {KEY.keyid: KEY.public}


def test_the_encoding_is_that_of_the_dsse_specification() -> None:
    """The example of the specification's protocol.md."""
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_ed25519_is_that_of_rfc_8032() -> None:
    """RFC 8032, section 7.1, test 1: the key derives this public key."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(secret))
    assert key.public == public
    assert key.keyid == keyid(public)
    assert len(key.keyid) == 16
    assert "9d61" not in repr(key)


@given(st.text(max_size=30), st.binary(max_size=200))
def test_what_is_signed_verifies(kind: str, payload: bytes) -> None:
    assert verify(sign(kind, payload, KEY), kind, KEYS) == payload


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=50), st.data())
def test_one_flipped_bit_never_verifies(payload: bytes, data: st.DataObject) -> None:
    good = sign("t", payload, KEY)
    part = data.draw(st.sampled_from(["payload", "sig", "type"]))
    sig = good.signatures[0].sig
    if part == "type":
        changed = Envelope(payloadType="u", payload=payload, signatures=good.signatures)
        kind = "u"
    else:
        kind = "t"
        target = bytearray(payload if part == "payload" else sig)
        bit = data.draw(st.integers(0, len(target) * 8 - 1))
        target[bit // 8] ^= 1 << bit % 8
        changed = Envelope(
            payloadType="t",
            payload=bytes(target) if part == "payload" else payload,
            signatures=(Signature(keyid=KEY.keyid, sig=bytes(target) if part == "sig" else sig),),
        )
    with pytest.raises(TrustError, match="bad-signature"):
        verify(changed, kind, KEYS)


def test_unknown_signatures_are_tolerated_and_duplicates_count_once() -> None:
    envelope = add_signature(sign("t", b"x", KEY), OTHER)
    assert verify(envelope, "t", KEYS) == b"x"
    both = KEYS | {OTHER.keyid: OTHER.public}
    assert signers(envelope, both) == set(both)
    doubled = Envelope(payloadType="t", payload=b"x", signatures=(envelope.signatures[0],) * 2)
    with pytest.raises(TrustError, match="1 of 2 required"):
        verify(doubled, "t", both, threshold=2)


def test_a_bad_signature_beside_a_good_one_of_the_same_key_does_no_harm() -> None:
    good = sign("t", b"x", KEY)
    bad = Signature(keyid=KEY.keyid, sig=b"\0" * 64)
    short = Signature(keyid=KEY.keyid, sig=b"")
    mixed = Envelope(payloadType="t", payload=b"x", signatures=(bad, short, *good.signatures))
    assert verify(mixed, "t", KEYS) == b"x"


def test_signing_again_replaces_the_own_signature() -> None:
    twice = add_signature(sign("t", b"x", KEY), KEY)
    assert len(twice.signatures) == 1


def test_a_key_under_a_wrong_id_is_not_believed() -> None:
    envelope = sign("t", b"x", OTHER)
    disguised = Envelope(
        payloadType="t",
        payload=b"x",
        signatures=(Signature(keyid=KEY.keyid, sig=envelope.signatures[0].sig),),
    )
    with pytest.raises(TrustError, match="bad-signature"):
        verify(disguised, "t", {KEY.keyid: OTHER.public})


def test_limits() -> None:
    good = sign("t", b"x", KEY)
    crowd = Envelope(
        payloadType="t", payload=b"x", signatures=good.signatures * (MAX_SIGNATURES + 1)
    )
    with pytest.raises(TrustError, match="too-many-signatures"):
        verify(crowd, "t", KEYS)
    with pytest.raises(TrustError, match="wrong-type"):
        verify(good, "u", KEYS)
    with pytest.raises(TrustError, match="0 of 1 required"):
        verify(good, "t", {}, threshold=0)


def test_keys_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k.pem"
    save_key(KEY, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path).public == KEY.public
    assert load_key(path, b"not needed").public == KEY.public
    assert load_public(path) == load_public(public_path(path)) == KEY.public
    assert sorted(each.name for each in path.parent.iterdir()) == ["k.pem", "k.pem.pub"]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    save_key(KEY, path)
    with pytest.raises(StorageError, match="file-exists"):
        save_key(OTHER, path)
    public_path(path).unlink()
    with pytest.raises(StorageError, match="file-exists"):
        save_key(OTHER, path)
    assert load_key(path).public == KEY.public
    lonely = tmp_path / "lonely.pem"
    public_path(lonely).write_bytes(b"taken")
    with pytest.raises(StorageError, match="file-exists"):
        save_key(OTHER, lonely)
    assert not lonely.exists()


def test_passphrases(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    save_key(KEY, path, b"secret")
    assert load_key(path, b"secret").public == KEY.public
    for passphrase, slug in ((None, "passphrase-needed"), (b"wrong", "wrong-passphrase")):
        with pytest.raises(TrustError, match=slug):
            load_key(path, passphrase)
    with pytest.raises(TrustError, match="passphrase-needed"):
        load_public(path)
    assert load_public(public_path(path)) == KEY.public


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAA==\n"])
def test_files_that_are_no_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(content)
    for load in (load_key, load_public):
        with pytest.raises(TrustError, match="bad-key"):
            load(path)


def test_keys_of_another_kind(tmp_path: Path) -> None:
    strange = rsa.generate_private_key(65537, 2048)
    pem, kinds = serialization.Encoding.PEM, serialization
    path = tmp_path / "rsa.pem"
    path.write_bytes(strange.private_bytes(pem, kinds.PrivateFormat.PKCS8, kinds.NoEncryption()))
    public = tmp_path / "rsa.pub"
    public.write_bytes(
        strange.public_key().public_bytes(pem, kinds.PublicFormat.SubjectPublicKeyInfo)
    )
    for load, file in ((load_key, path), (load_public, public)):
        with pytest.raises(TrustError, match="bad-key"):
            load(file)


def test_a_missing_key(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="no-key"):
        load_key(tmp_path / "nowhere.pem")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EdgeError, match="write-failed"):
        save_key(KEY, tmp_path / "k.pem")
