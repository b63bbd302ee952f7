"""The stream's own labels, from a JSON file beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_sdk.errors import SourceError

MAX_BYTES = 64 * 1024 * 1024


class _Labels(msgspec.Struct):
    labels: list[str | int]


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels in frame order.

    Args:
        path: JSON, ``{"labels": ["7", "2", ...]}``; integers are taken as names. An empty string
            leaves its frame unlabelled.

    Raises:
        SourceError: ``source.missing-file`` or ``source.bad-labels``.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise SourceError(
            "missing-file",
            f"Cannot read the labels {path}: {error.strerror or error}.",
            "Check labels in [pipeline.source], or leave it out for an unlabelled stream.",
        ) from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        document = msgspec.json.decode(data, type=_Labels)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SourceError(
            "bad-labels",
            f"{path} holds no labels: {error}.",
            'Write it as {"labels": ["cat", "dog", ...]}, one per frame.',
        ) from error
    return tuple(str(label) for label in document.labels)
