"""X.509 certificates of a fleet's broker: pure functions over keys, names and times.

Profile: RFC 5280; P-256 keys with SHA-256, which every TLS library of the last decade has. The
common name is the identity: what mosquitto takes as user name (``use_identity_as_username``).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

SKEW = timedelta(days=1)
"""Certificates are valid from this long before they are made, for hosts whose clock is late."""

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key. The ``repr`` shows the name only."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Identity({name_of(self.certificate)})"

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key as PKCS#8 PEM, not encrypted: it must be usable unattended."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def name_of(certificate: x509.Certificate) -> str:
    """The common name; empty when there is none."""
    attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attributes[0].value) if attributes else ""


def make_authority(name: str, now: datetime, days: int) -> Identity:
    """A self-signed authority that may sign certificates, but no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), _name(name), key.public_key(), now)
    builder = builder.not_valid_after(now + timedelta(days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    return Identity(builder.sign(key, hashes.SHA256()), key)


def issue_client(authority: Identity, name: str, now: datetime, days: int) -> Identity:
    """A certificate by which a device or the server signs in."""
    return _issue(authority, name, now, days, ExtendedKeyUsageOID.CLIENT_AUTH, ())


def issue_broker(authority: Identity, hosts: Sequence[str], now: datetime, days: int) -> Identity:
    """A certificate by which clients recognise the broker at any of ``hosts``."""
    return _issue(authority, "broker", now, days, ExtendedKeyUsageOID.SERVER_AUTH, hosts)


def revocation_list(
    authority: Identity, revoked: Iterable[tuple[x509.Certificate, datetime]], now: datetime
) -> bytes:
    """The list of revoked certificates as PEM.

    It holds as long as the authority does: an outdated list would lock every device out, and
    withholding a newer one takes the broker's own disk.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - SKEW)
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(_authority_id(authority), critical=False)
    )
    for certificate, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(at).build())
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def _issue(
    authority: Identity,
    name: str,
    now: datetime,
    days: int,
    purpose: ObjectIdentifier,
    hosts: Sequence[str],
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = _builder(_name(name), issuer.subject, key.public_key(), now)
    builder = builder.not_valid_after(min(now + timedelta(days), issuer.not_valid_after_utc))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
    builder = builder.add_extension(_usage("digital_signature"), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(_authority_id(authority), critical=False)
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return Identity(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _authority_id(authority: Identity) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _USAGES})


def _host(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def utc_now() -> datetime:
    """The present, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
