"""Whether the broker can be reached and takes us in, for ``edge-agent doctor``."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import BrokerConfig, tls_files
from edge_sdk.errors import ConfigError, LinkError
from edge_sdk.tls import client_context, explain

if TYPE_CHECKING:
    from cryptography.x509 import Name

CONNECT_S = 3.0
VERDICT_S = 1.0
"""A broker that refuses our certificate says so within this, after the handshake (TLS 1.3)."""
RENEW_DAYS = 30
"""A certificate with less than this left is worth a word."""


def check_broker(broker: BrokerConfig, tenant: str, device_id: str, now: float) -> str:
    """One connection attempt; what was found.

    Nothing is said to the broker, so an agent that runs is not thrown out by its own check.

    Raises:
        ConfigError: ``config.bad-tls``, ``config.key-exposed``, ``config.certificate-expired`` or
            ``config.wrong-certificate``.
        LinkError: ``link.broker-unreachable`` or ``link.broker-refused``.
    """
    found = [f"{broker.host}:{broker.port} answers"]
    context = None
    if broker.tls_ca:
        context = client_context(tls_files(broker), now)
        if broker.tls_cert:
            found.append(_check_certificate(broker, tenant, device_id, now))
    try:
        with socket.create_connection((broker.host, broker.port), CONNECT_S) as plain:
            if context is not None:
                _shake_hands(plain, context, broker)
    except OSError as error:
        raise LinkError(
            "broker-unreachable",
            f"No MQTT broker answers at {broker.host}:{broker.port}: {error}.",
            "Start one (`edge broker run`), or correct [broker] in the agent's configuration.",
        ) from error
    return ", ".join(found)


def _shake_hands(plain: socket.socket, context: ssl.SSLContext, broker: BrokerConfig) -> None:
    try:
        with context.wrap_socket(plain, server_hostname=broker.host) as secure:
            secure.settimeout(VERDICT_S)
            try:
                gone = secure.recv(1) == b""
            except TimeoutError:
                return
            if gone:
                raise ConnectionResetError("the broker closed the connection")
    except (ssl.SSLError, ConnectionError) as error:
        raise LinkError(
            "broker-refused",
            f"There is no TLS connection with {broker.host}:{broker.port}: {explain(error)}.",
            "Check host, tls_ca, tls_cert and tls_key under [broker]; see docs/brokers.md.",
        ) from error


def _check_certificate(broker: BrokerConfig, tenant: str, device_id: str, now: float) -> str:
    """What our certificate says, once it is ours and in force."""
    from cryptography import x509  # only here: a running agent leaves certificates to OpenSSL

    if Path(broker.tls_key).stat().st_mode & 0o077:
        raise ConfigError(
            "key-exposed",
            f"Other users of this machine may read the private key {broker.tls_key}.",
            f"chmod 600 {broker.tls_key}, and have the agent's user own it.",
        )
    certificate = x509.load_pem_x509_certificate(Path(broker.tls_cert).read_bytes())
    expires = certificate.not_valid_after_utc
    days = (expires - datetime.fromtimestamp(now, UTC)).days
    if days < 0:
        raise ConfigError(
            "certificate-expired",
            f"The certificate {broker.tls_cert} expired on {expires:%Y-%m-%d}.",
            "Issue a new one with `edge broker certificate`, or correct the device's clock.",
        )
    name = _common_name(certificate.subject)
    ours = _common_name(certificate.issuer) == f"{tenant} broker authority"
    if ours and name != device_id:
        raise ConfigError(
            "wrong-certificate",
            f"The certificate {broker.tls_cert} is that of {name!r}, and this is {device_id!r}.",
            "The broker would let it write the topics of the other only: copy the right files.",
        )
    soon = f", renew it: {days} days left" if days < RENEW_DAYS else ""
    return f"signs in as {name!r} until {expires:%Y-%m-%d}{soon}"


def _common_name(name: Name) -> str:
    from cryptography.x509.oid import NameOID

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
