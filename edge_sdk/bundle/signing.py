"""Ed25519 signatures over DSSE envelopes.

Format: DSSE v1 (https://github.com/secure-systems-lab/dsse, ``envelope.md`` and ``protocol.md``),
Ed25519 as in RFC 8032, keys in PEM (PKCS#8 private, SubjectPublicKeyInfo public).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_sdk.contracts.envelope import Envelope, Signature, pre_authentication_encoding
from edge_sdk.durable import storage_error, sync_folder
from edge_sdk.errors import StorageError, TrustError

PUBLIC_KEY_BYTES = 32
MAX_SIGNATURES = 32
"""An envelope with more is refused unread: checking them all is work an attacker could order."""


def keyid(public: bytes) -> str:
    """The id of a raw public key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. Its ``repr`` shows the public id only."""

    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.keyid})"

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def keyid(self) -> str:
        """The public key's id."""
        return keyid(self.public)


def generate_key() -> SigningKey:
    """A new key from the operating system's randomness."""
    return SigningKey(Ed25519PrivateKey.generate())


def save_key(key: SigningKey, path: Path, passphrase: bytes | None = None) -> None:
    """Write the private key to ``path`` (mode 0600) and the public key beside it (``.pub``).

    Raises:
        StorageError: ``storage.file-exists``; a key is never overwritten. Or a failed write.
    """
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    private = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    )
    if public_path(path).exists():
        raise _exists(public_path(path))
    _write_new(path, private, 0o600)
    _write_new(public_path(path), public_pem(key.public), 0o644)


def public_path(path: Path) -> Path:
    """Where :func:`save_key` puts the public half of ``path``."""
    return path.with_name(path.name + ".pub")


def public_pem(public: bytes) -> bytes:
    """A raw public key as PEM."""
    return Ed25519PublicKey.from_public_bytes(public).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_key(path: Path, passphrase: bytes | None = None) -> SigningKey:
    """Read a private key.

    Raises:
        TrustError: ``trust.no-key``, ``trust.bad-key``, ``trust.passphrase-needed`` or
            ``trust.wrong-passphrase``.
    """
    data = _read_key(path)
    try:
        private = serialization.load_pem_private_key(data, passphrase or None)
    except TypeError as error:
        if passphrase is None:
            raise TrustError(
                "passphrase-needed",
                f"The key {path} is protected by a passphrase.",
                "Give the passphrase (the edge command asks, or reads EDGE_KEY_PASSPHRASE).",
            ) from error
        return load_key(path)
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"BEGIN ENCRYPTED PRIVATE KEY" in data:
            raise TrustError(
                "wrong-passphrase",
                f"The passphrase does not open the key {path}.",
                "Try again; without its passphrase a key is lost and a new one must be made.",
            ) from error
        raise _bad_key(path) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise _bad_key(path)
    return SigningKey(private)


def load_public(path: Path) -> bytes:
    """Read a public key from a PEM file, public or (unprotected) private, as 32 raw bytes.

    Raises:
        TrustError: ``trust.no-key`` or ``trust.bad-key``.
    """
    data = _read_key(path)
    if b"PRIVATE KEY" in data:
        return load_key(path).public
    try:
        public = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_key(path) from error
    if not isinstance(public, Ed25519PublicKey):
        raise _bad_key(path)
    return public.public_bytes_raw()


def sign(payload_type: str, payload: bytes, key: SigningKey) -> Envelope:
    """A new envelope with one signature."""
    unsigned = Envelope(payloadType=payload_type, payload=payload, signatures=())
    return add_signature(unsigned, key)


def add_signature(envelope: Envelope, key: SigningKey) -> Envelope:
    """The envelope with ``key``'s signature added, in place of an earlier one of the same key."""
    message = pre_authentication_encoding(envelope.payloadType, envelope.payload)
    others = tuple(known for known in envelope.signatures if known.keyid != key.keyid)
    mine = Signature(keyid=key.keyid, sig=key.private.sign(message))
    return Envelope(
        payloadType=envelope.payloadType,
        payload=envelope.payload,
        signatures=(*others, mine),
    )


def signers(envelope: Envelope, keys: Mapping[str, bytes]) -> set[str]:
    """Ids of the keys in ``keys`` whose signature on the envelope holds.

    Signatures of unknown keys are ignored, so that a key can be introduced before every device
    knows it. Several signatures of one key count once.
    """
    message = pre_authentication_encoding(envelope.payloadType, envelope.payload)
    held = set()
    for signature in envelope.signatures:
        public = keys.get(signature.keyid)
        if public is None or keyid(public) != signature.keyid:
            continue
        with contextlib.suppress(InvalidSignature, ValueError):
            Ed25519PublicKey.from_public_bytes(public).verify(signature.sig, message)
            held.add(signature.keyid)
    return held


def verify(
    envelope: Envelope, payload_type: str, keys: Mapping[str, bytes], threshold: int = 1
) -> bytes:
    """The payload, once enough known keys have signed it.

    Args:
        envelope: as received.
        payload_type: the only type accepted; a signature on another type of document does not
            carry over.
        keys: key id to raw public key.
        threshold: how many different keys must have signed; at least 1.

    Raises:
        TrustError: ``trust.wrong-type``, ``trust.too-many-signatures`` or
            ``trust.bad-signature``.
    """
    check_type(envelope, payload_type)
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise TrustError(
            "too-many-signatures",
            f"The envelope carries {len(envelope.signatures)} signatures.",
            f"At most {MAX_SIGNATURES} are read.",
        )
    held = signers(envelope, keys)
    if len(held) < max(threshold, 1):
        known = ", ".join(sorted(keys)) or "none"
        given = ", ".join(sorted({signature.keyid[:16] for signature in envelope.signatures}))
        raise TrustError(
            "bad-signature",
            f"{len(held)} of {max(threshold, 1)} required signatures hold"
            f" (signed by: {given or 'nobody'}; trusted keys: {known}).",
            "Sign with a trusted key (`edge release sign`), or add the signer to the trust file.",
        )
    return envelope.payload


def check_type(envelope: Envelope, payload_type: str) -> None:
    """Refuse another kind of document.

    Raises:
        TrustError: ``trust.wrong-type``.
    """
    if envelope.payloadType != payload_type:
        raise TrustError(
            "wrong-type",
            f"The envelope holds {envelope.payloadType[:80]!r}, not {payload_type!r}.",
            "Check which file or message was given.",
        )


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(
            "no-key",
            f"Cannot read the key {path}: {error.strerror or error}.",
            "Make one with `edge release key create`, or correct the path.",
        ) from error


def _bad_key(path: Path) -> TrustError:
    return TrustError(
        "bad-key",
        f"{path} is not an Ed25519 key in PEM.",
        "Make one with `edge release key create`.",
    )


def _exists(path: Path) -> StorageError:
    return StorageError(
        "file-exists",
        f"{path} exists already; a key is never overwritten.",
        "Choose another name, or move the old key away first.",
    )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Create ``path`` durably; the link fails when the name is taken, so nothing is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.write(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.link(temporary, path)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
