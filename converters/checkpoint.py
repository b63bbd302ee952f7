"""The state of a running training: everything that decides how it goes on."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.usercode import first_line
from edge_sdk.durable import DiskStorage, Storage
from edge_sdk.errors import UsageError


@dataclass(frozen=True, slots=True)
class Form:
    """Whose checkpoint a file is."""

    name: str
    """Format and version, e.g. ``edge-distill-2``."""
    command: str
    asked_key: str = "asked"
    """What the file calls the request."""


def save_state(
    form: Form,
    path: Path,
    asked: dict[str, Any],
    state: dict[str, Any],
    storage: Storage | None = None,
) -> None:
    """Write a checkpoint atomically: the old one or the new one, whatever happens.

    Args:
        form: of the command that runs.
        path: of the checkpoint.
        asked: what the run was asked to do; with other values it is not gone on with.
        state: tensors, numbers, texts and collections of them.
        storage: the disk; a power-cut test brings its own.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the old one stays.
    """
    buffer = io.BytesIO()
    torch.save(
        {"format": form.name, form.asked_key: asked, "random": random_states(), "state": state},
        buffer,
    )
    (storage or DiskStorage()).write(path, buffer.getvalue())


def load_state(
    form: Form, path: Path, asked: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
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
        if document["format"] != form.name:
            raise ValueError(f"its format is {document['format']!r}")
        then, state = dict(document[form.asked_key]), dict(document["state"])
        generators = dict(document["random"])
    except Exception as error:
        raise bad_checkpoint(path, f"is no checkpoint of {form.command}", error) from error
    _check_same(then, asked, path)
    return state, generators


def bad_checkpoint(path: Path, what: str, error: Exception) -> UsageError:
    """The error for a checkpoint that cannot be gone on with."""
    return UsageError(
        "bad-checkpoint",
        f"{path} {what}: {first_line(error)}",
        "Delete it and start without --resume.",
    )


def seed_all(seed: int) -> None:
    """Seed every generator that a checkpoint keeps."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _check_same(then: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    different = [name for name, value in now.items() if then.get(name) != value]
    if different:
        name = different[0]
        raise UsageError(
            "resume-mismatch",
            f"{path} was started with {name} {then.get(name)!r}, now it is {now[name]!r}.",
            "Give the same options, or delete the checkpoint and start over.",
        )


def random_states() -> dict[str, Any]:
    """States of the generators that a user's code may draw from."""
    drawn = dict(np.random.get_state(legacy=False))
    version, numbers, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [
            torch.from_numpy(drawn["state"]["key"].astype(np.int64)),
            int(drawn["state"]["pos"]),
            int(drawn["has_gauss"]),
            float(drawn["gauss"]),
        ],
        "python": [version, list(numbers), following],
    }


def restore_random(states: dict[str, Any]) -> None:
    """Let the generators go on from :func:`random_states`."""
    torch.set_rng_state(states["torch"])
    keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers), following))
