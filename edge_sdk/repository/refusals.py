"""What the ceremony refuses, in words for its holders."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.errors import StorageError, TrustError, UsageError
from edge_sdk.repository.metadata import KeyRole


def already_there(folder: Path) -> StorageError:
    """The refusal to begin where somebody has begun."""
    return StorageError(
        "file-exists",
        f"{folder} holds a repository already.",
        "Use `edge release key add`, `rotate` or `revoke` to change it.",
    )


def same_key(role: KeyRole) -> UsageError:
    """The refusal to name a key that may sign for the role already."""
    made = (
        f"`edge server keys --data DATA --replace {role}` makes one, while the server is stopped."
    )
    return UsageError(
        "same-key",
        f"That key may sign for {role} already.",
        made if role in ("fleet", "snapshot", "timestamp") else "Make a new one: omit --public.",
    )


def too_few(role: KeyRole, have: int, wanted: int) -> TrustError:
    """The refusal to sign with fewer keys than are asked for."""
    return TrustError(
        "too-few-keys",
        f"{wanted} {role} keys must sign; {have} of the private keys are here.",
        "Name the others with --key, or let their holders sign.",
    )


def check_threshold(threshold: int, keys: int, role: KeyRole) -> None:
    """Refuse a threshold that no number of holders can reach, or none.

    Raises:
        TrustError: ``trust.bad-threshold``.
    """
    if not 1 <= threshold <= keys:
        raise TrustError(
            "bad-threshold",
            f"{threshold} signatures would be asked of {keys} {role} keys.",
            "Keep at least one key per role, and no higher threshold than there are keys.",
        )


def read_file(path: Path) -> bytes:
    """A file of the ceremony's folder.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            "unreadable",
            f"Cannot read {path}: {error.strerror or error}.",
            "Restore it from a copy of the folder; whoever got the metadata last has one, and so"
            " has the server (DATA/tuf).",
        ) from error
