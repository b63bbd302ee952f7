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
    """As :func:`needs`, for everything that a conversion takes."""
    needs(*CONVERTERS)


def needs(*modules: str) -> None:
    """Refuse early, with the install command, when packages are missing; calm their threads.

    Raises:
        UsageError: ``usage.extra-missing``.
    """
    import importlib.util
    import os

    # Idle math threads would spin by default: on a busy machine that made a training of twenty
    # seconds take a hundred. OpenMP reads this once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
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


def gate_share(options: dict[str, Any], name: str) -> float:
    """A share of accuracy that the command line gives.

    Raises:
        UsageError: ``usage.bad-share``.
    """
    value: float = options[name]
    if not 0 <= value <= 1:  # false for NaN too, which no gate would ever refuse
        raise UsageError(
            "bad-share",
            f"--{name.replace('_', '-')} is {value:g}.",
            "Give a share from 0 to 1; 0.01 is one point.",
        )
    return value


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal():
        raise UsageError(
            "bad-resolution", f"{text!r} is not a resolution.", "Write HEIGHTxWIDTH, e.g. 24x24."
        )
    return int(height), int(width)
