"""TLS towards a broker or mirror: contexts from PEM files, and failures in words.

Standard library only; shared by the agent and the fleet server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ConfigError

if TYPE_CHECKING:
    import ssl

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name."""

_MEANINGS = (
    ("CERTIFICATE_REVOKED", "{peer} refuses this certificate: it has been revoked"),
    ("ALERT_CERTIFICATE_EXPIRED", "{peer} refuses this certificate: it has expired"),
    ("ALERT_UNKNOWN_CA", "{peer} refuses this certificate: another authority signed it"),
    ("CERTIFICATE_REQUIRED", "{peer} asks for a client certificate, and none is configured"),
    ("ALERT_BAD_CERTIFICATE", "{peer} refuses this certificate"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "{peer} refuses this certificate: it is no client's"),
    ("ALERT_HANDSHAKE_FAILURE", "{peer} refuses the connection; it may ask for a certificate"),
    ("certificate has expired", "{peer}'s certificate has expired, or the clock is ahead"),
    (
        "certificate is not yet valid",
        "{peer}'s certificate is not valid yet: the clock is late",
    ),
    ("Hostname mismatch", "{peer}'s certificate names another host than the one configured"),
    ("IP address mismatch", "{peer}'s certificate does not name the configured address"),
    (
        "unsuitable certificate purpose",
        "what answers is not {peer}: it shows a client's certificate",
    ),
    ("certificate verify failed", "{peer}'s certificate is not signed by the configured CA"),
    ("WRONG_VERSION_NUMBER", "what answers on this port does not speak TLS"),
)
"""Words in an OpenSSL message, and what they mean; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one side of a connection."""

    ca: Path | None
    """Who must have signed the other side; None for the authorities of the system."""
    certificate: Path | None = None
    key: Path | None = None

    def present(self) -> Iterable[Path]:
        """The files that are named."""
        return (path for path in (self.ca, self.certificate, self.key) if path is not None)


SYSTEM_FILES = TlsFiles(ca=None)
"""Believe the system's authorities, and show no certificate."""


def client_context(files: TlsFiles, now: float) -> ssl.SSLContext:
    """A context that checks the broker's certificate and host name, and shows ours.

    A clock that is earlier than the making of our own authority is wrong for certain. Then the
    broker's certificate is not held to it: a board without a clock must be able to connect, and
    what comes over the connection is signed anyway.

    Args:
        files: which files.
        now: seconds since the epoch, as the system has it.

    Raises:
        ConfigError: ``config.bad-tls``.
    """
    import ssl  # 4 MiB that workers, who only read the configuration, can do without

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in files.present():
        _check_readable(path)
    try:
        if files.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(files.ca)
        if files.certificate is not None:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        raise _unusable(files, error) from error
    if now < _made_at(context):
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def explain(problem: object, peer: str = "the broker") -> str:
    """A failed connection in words; what is not known stays as it is."""
    text = str(problem)
    meaning = next((meaning for words, meaning in _MEANINGS if words in text), None)
    return text if meaning is None else meaning.format(peer=peer)


def _made_at(context: ssl.SSLContext) -> float:
    """When the latest of the loaded authorities began to be valid; 0 without any."""
    import ssl

    dates = [str(ca["notBefore"]) for ca in context.get_ca_certs() if "notBefore" in ca]
    return max(map(ssl.cert_time_to_seconds, dates), default=0)


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise _bad_tls(f"{path} cannot be read: {error.strerror or error}") from error


def _unusable(files: TlsFiles, error: Exception) -> ConfigError:
    reason = getattr(error, "reason", None) or ""
    if "KEY_VALUES_MISMATCH" in reason:
        return _bad_tls(f"the key {files.key} does not belong to {files.certificate}")
    names = ", ".join(map(str, files.present()))
    return _bad_tls(f"{names}: {reason.replace('_', ' ').lower() or error}")


def _bad_tls(problem: str) -> ConfigError:
    return ConfigError(
        "bad-tls",
        f"The broker's TLS files cannot be used: {problem}.",
        "All are PEM files, the key without a passphrase; this user must be able to read them.",
    )
