"""Errors a user can act on: a stable code, the cause, and the hint that fixes it.

Each family is one class, one exit code and one page in ``docs/errors/``. A code reads
``family.slug`` (``trust.bad-signature``); a test holds every code raised anywhere to an entry
on its family's page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class EdgeError(Exception):
    """Base of every error this product raises on purpose.

    Args:
        slug: short stable name within the family, lower case with dashes.
        cause: what is wrong and where, in one sentence.
        hint: what the user can do about it, in one sentence.
    """

    family: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, slug: str, cause: str, hint: str) -> None:
        super().__init__(f"{self.family}.{slug}: {cause} Hint: {hint}")
        self.slug = slug
        self.cause = cause
        self.hint = hint

    @property
    def code(self) -> str:
        """The full code, ``family.slug``."""
        return f"{self.family}.{self.slug}"

    def as_dict(self) -> dict[str, str]:
        """The error as ``--json`` prints it."""
        return {"code": self.code, "cause": self.cause, "hint": self.hint}


class UsageError(EdgeError):
    """The command line asks for something that does not exist or does not fit together."""

    family = "usage"
    exit_code = 2


class GateError(EdgeError):
    """A measured result misses the gate the user or the product set."""

    family = "gate"
    exit_code = 3


class ConfigError(EdgeError):
    """A configuration file or value is not what its schema says."""

    family = "config"
    exit_code = 4


class ProfileError(EdgeError):
    """A device profile is unknown, malformed or unfit for what was asked."""

    family = "profile"
    exit_code = 4


class TaskError(EdgeError):
    """A user's model file does not keep the task protocol."""

    family = "task"
    exit_code = 4


class ConversionError(EdgeError):
    """A model cannot be exported, quantized or verified."""

    family = "conversion"
    exit_code = 4


class ContractError(EdgeError):
    """A document or message does not decode to its contract."""

    family = "contract"
    exit_code = 4


class LinkError(EdgeError):
    """A broker, server or device cannot be reached, or refuses."""

    family = "link"
    exit_code = 5


class TrustError(EdgeError):
    """A signature, digest or counter does not hold."""

    family = "trust"
    exit_code = 6


class StorageError(EdgeError):
    """Disk, memory, port or another local resource is missing or exhausted."""

    family = "storage"
    exit_code = 7


class RuntimeUnavailableError(EdgeError):
    """No inference runtime on this machine can run the artifact."""

    family = "runtime"
    exit_code = 8


class SourceError(EdgeError):
    """A camera, microphone or file cannot be opened or has ended."""

    family = "source"
    exit_code = 8


def error_from(document: Mapping[str, Any]) -> EdgeError:
    """The error that :meth:`EdgeError.as_dict` described, with its own family and exit code.

    A family this version does not know becomes a plain :class:`EdgeError`.
    """
    family, _, slug = str(document.get("code", "")).partition(".")
    kind = next((k for k in EdgeError.__subclasses__() if k.family == family), EdgeError)
    return kind(slug or "unknown", str(document.get("cause", "")), str(document.get("hint", "")))
