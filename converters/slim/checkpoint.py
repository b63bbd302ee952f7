"""The state of a running slimming: all that decides how it goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from converters.distill.checkpoint import random_states, restore_random
from converters.slim.settings import Settings
from converters.usercode import first_line
from edge_sdk.durable import DiskStorage, Storage
from edge_sdk.errors import UsageError

CHECKPOINT_SUFFIX = ".running"
_FORMAT = "edge-slim-run-1"


def save(path: Path, settings: Settings, state: dict[str, Any], storage: Storage | None) -> None:
    """Write a checkpoint atomically.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the old one stays.
    """
    document = {
        "format": _FORMAT,
        "settings": settings.as_dict(),
        "random": random_states(),
        "state": state,
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    (storage or DiskStorage()).write(path, buffer.getvalue())


def load(path: Path, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state in a checkpoint, and the random generators' for :func:`restore_random`.

    Only tensors and plain values are unpickled (``weights_only``): the file cannot run code.

    Raises:
        UsageError: ``usage.nothing-to-resume``, ``usage.bad-checkpoint``,
            ``usage.resume-mismatch``.
    """
    if not path.is_file():
        raise UsageError(
            "nothing-to-resume", f"There is no checkpoint {path}.", "Start without --resume."
        )
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        asked, state = dict(document["settings"]), dict(document["state"])
        generators = dict(document["random"])
    except Exception as error:
        raise UsageError(
            "bad-checkpoint",
            f"{path} is not a checkpoint of edge model slim: {first_line(error)}",
            "Delete it and start without --resume.",
        ) from error
    now = settings.as_dict()
    different = [name for name, value in now.items() if asked.get(name) != value]
    if different:
        name = different[0]
        raise UsageError(
            "resume-mismatch",
            f"{path} was started with {name} {asked.get(name)!r}, now it is {now[name]!r}.",
            "Give the same options, or delete the checkpoint and start over.",
        )
    return state, generators


__all__ = ["CHECKPOINT_SUFFIX", "load", "restore_random", "save"]
