"""Secrets and the lock in the server's data folder."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_sdk.bundle.signing import SigningKey, generate_key, load_key, public_path, save_key
from edge_sdk.durable import DiskStorage, held_lock, storage_error
from edge_sdk.errors import StorageError, TrustError
from edge_sdk.server.metadata import OnlineKeys

log = logging.getLogger(__name__)

TOKEN_NAME = "token"
KEY_NAME = "fleet.key"
SNAPSHOT_KEY_NAME = "snapshot.key"
TIMESTAMP_KEY_NAME = "timestamp.key"


@contextmanager
def locked_data(data: Path) -> Iterator[None]:
    """Hold the data folder, created when missing; one server at a time.

    Raises:
        StorageError: ``storage.data-in-use`` or a failed write.
    """
    busy = StorageError(
        "data-in-use",
        f"Another server uses the data folder {data}.",
        "Stop it, or give this one a folder of its own with --data.",
    )
    with held_lock(data / "server.lock", busy):
        yield


def fleet_key(data: Path) -> SigningKey:
    """The key that signs desired states, made at the first start.

    Raises:
        TrustError: ``trust.bad-key``.
        StorageError: a failed write.
    """
    return _kept_key(data, KEY_NAME)


def online_keys(data: Path) -> OnlineKeys:
    """All keys of the server; those for snapshots and timestamps are made at the first start too.

    Raises:
        TrustError: ``trust.bad-key``.
        StorageError: a failed write.
    """
    names = (KEY_NAME, SNAPSHOT_KEY_NAME, TIMESTAMP_KEY_NAME)
    return OnlineKeys(*(_kept_key(data, name) for name in names))


def _kept_key(data: Path, name: str) -> SigningKey:
    """A key of the server, made when there was none."""
    path = data / name
    if not path.exists():
        if public_path(path).exists():
            role = path.stem
            raise TrustError(
                "no-key",
                f"{path} is missing, though its public half is there.",
                f"Restore it from a backup, or replace it: edge server keys --data {data} "
                f"--replace {role}",
            )
        save_key(generate_key(), path)
    key, mode = load_key(path), path.stat().st_mode & 0o777
    if mode & 0o077:
        log.warning("%s may be read by others (mode %o); run: chmod 600 %s", path, mode, path)
    return key


def replace_key(data: Path, role: str) -> Path:
    """Make a new online key in place of the present one, which is kept beside it.

    Raises:
        StorageError: a failed write; the key in force is unchanged.
    """
    path = data / f"{role}.key"
    number = 1
    while (kept := data / f"{role}.key.old-{number}").exists():
        number += 1
    try:
        for source, aside in ((path, kept), (public_path(path), public_path(kept))):
            if source.exists():
                source.replace(aside)
    except OSError as error:
        raise storage_error(error, path) from error
    save_key(generate_key(), path)
    return public_path(path)


def access_token(data: Path) -> str:
    """The bearer token of the REST interface, made at the first start, mode 0600.

    Raises:
        StorageError: a failed read or write.
    """
    path = data / TOKEN_NAME
    try:
        if not path.exists():
            DiskStorage().write(path, f"{secrets.token_urlsafe(32)}\n".encode(), 0o600)
        return path.read_text().strip()
    except OSError as error:
        raise storage_error(error, path) from error


def page_cookie(token: str) -> str:
    """What a browser is given in exchange for the token: it opens pages, not the interface."""
    return hmac.new(token.encode(), b"edge-sdk page", "sha256").hexdigest()
