"""What several ``edge model`` commands share: lists, the cache, the packages they need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.cache import Cache

F = TypeVar("F", bound=Callable[..., Any])
INSTALL_HINT = "pip install 'edge-sdk[convert]'"
CONVERTERS = ("torch", "onnx", "onnxruntime", "litert_torch", "ai_edge_quantizer")


def cache_options(command: F) -> F:
    """``--cache DIR`` and ``--no-cache``."""
    command = click.option("--no-cache", is_flag=True, help="Repeat all work.")(command)
    return click.option(
        "--cache",
        "cache_folder",
        type=click.Path(path_type=Path),
        help="Folder of earlier passes. Default: edge-sdk/convert in the user's cache folder.",
    )(command)


def cache_from(options: dict[str, Any]) -> Cache | None:
    """The cache that the command line names.

    Raises:
        UsageError: ``usage.cache-unusable``.
    """
    from converters.cache import Cache, default_folder

    if options["no_cache"]:
        return None
    return Cache(options["cache_folder"] or default_folder())


def needs_converters() -> None:
    """Refuse early, with the install command, when packages are missing.

    Raises:
        UsageError: ``usage.extra-missing``.
    """
    import importlib.util
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle math threads do not spin
    missing = [name for name in CONVERTERS if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError("extra-missing", f"This command needs {', '.join(missing)}.", INSTALL_HINT)


def listed(text: str | None) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def sizes(text: str | None) -> tuple[tuple[int, int], ...]:
    """``32x32,24x24`` as (height, width) pairs.

    Raises:
        UsageError: ``usage.bad-resolution``.
    """
    return tuple(_size(part) for part in listed(text))


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal():
        raise UsageError(
            "bad-resolution", f"{text!r} is not a resolution.", "Write HEIGHTxWIDTH, e.g. 24x24."
        )
    return int(height), int(width)
