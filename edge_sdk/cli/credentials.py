"""TLS files towards the broker, as commands find and hand them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.brokers.layout import FOLDER
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ConfigError, UsageError
from edge_sdk.tls import TlsFiles

if TYPE_CHECKING:
    from edge_sdk.brokers.authority import Authority

CA_NAME, CERTIFICATE_NAME, KEY_NAME = "broker-ca.pem", "device.pem", "device.key"


def find_authority(named: Path | None, data: Path | None) -> Path:
    """The authority's folder: ``--authority``, or its place in the server's data folder.

    Raises:
        UsageError: ``usage.no-authority-folder``.
    """
    if named is not None:
        return named
    if data is None:
        raise UsageError(
            "no-authority-folder",
            "Nothing says where the broker's authority lies.",
            "Name the server's data folder with --data (EDGE_DATA), or the authority's own with "
            "--authority.",
        )
    return data / FOLDER


def existing_authority(named: Path | None, data: Path | None) -> Authority | None:
    """The authority that devices get their certificates from, if the fleet has one here.

    Raises:
        TrustError: as :class:`~edge_sdk.brokers.authority.Authority`, where one is named.
    """
    from edge_sdk.brokers.authority import Authority

    if named is None and (data is None or not (data / FOLDER / "ca.pem").exists()):
        return None
    return Authority(find_authority(named, data))


def server_files(
    data: Path, ca: Path | None, certificate: Path | None, key: Path | None
) -> TlsFiles:
    """What the server shows the broker: the files that are named, or those of its authority.

    Raises:
        ConfigError: ``config.tls-incomplete``.
    """
    if key is not None and certificate is None:
        raise ConfigError(
            "tls-incomplete",
            "--broker-key needs --broker-cert.",
            "Give both for mutual TLS, or --broker-ca alone to check the broker only.",
        )
    own = data / FOLDER
    if ca is None and certificate is None and (own / "ca.pem").exists():
        return TlsFiles(own / "ca.pem", own / "server.pem", own / "server.key")
    return TlsFiles(ca, certificate, key)


def write_credentials(authority: Authority, name: str, folder: Path) -> None:
    """Issue a device's certificate and write it, its key and the CA to ``folder``."""
    made, storage = authority.issue(name), DiskStorage()
    storage.write(folder / KEY_NAME, made.key_pem, 0o600)
    storage.write(folder / CERTIFICATE_NAME, made.certificate_pem)
    storage.write(folder / CA_NAME, authority.ca_pem)


def broker_lines(authority: Authority | None, ca: Path | None) -> list[str]:
    """Lines of ``[broker]`` in ``agent.toml`` for a broker that speaks TLS.

    Raises:
        ConfigError: ``config.tls-incomplete``: nothing says whom the device should believe.
    """
    if authority is not None:
        names = {"tls_ca": CA_NAME, "tls_cert": CERTIFICATE_NAME, "tls_key": KEY_NAME}
    elif ca is not None:
        names = {"tls_ca": str(ca)}
    else:
        raise ConfigError(
            "tls-incomplete",
            "The broker is reached by TLS, and nothing says by which CA devices recognise it.",
            "Make an authority (`edge broker authority init`), or name the CA with --broker-ca.",
        )
    return [f"{key} = {json.dumps(value)}" for key, value in names.items()]
