"""Secrets and the lock in the server's data folder."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_sdk.bundle.signing import SigningKey, generate_key, load_key, public_path, save_key
from edge_sdk.durable import DiskStorage, held_lock, storage_error
from edge_sdk.errors import StorageError
from edge_sdk.server.metadata import OnlineKeys

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
    path = data / KEY_NAME
    if not path.exists():
        save_key(generate_key(), path)
    return load_key(path)


def online_keys(data: Path) -> OnlineKeys:
    """All keys of the server; those for snapshots and timestamps are made at the first start too.

    Raises:
        TrustError: ``trust.bad-key``.
        StorageError: a failed write.
    """
    made = []
    for name in (SNAPSHOT_KEY_NAME, TIMESTAMP_KEY_NAME):
        if not (data / name).exists():
            save_key(generate_key(), data / name)
        made.append(load_key(data / name))
    return OnlineKeys(fleet_key(data), *made)


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
