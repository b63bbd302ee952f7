"""Which runtime packages this machine has; injectable, so that negotiation can be tested."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Protocol


class Packages(Protocol):
    """The installed distributions."""

    def version(self, distribution: str) -> str | None:
        """Version of an installed distribution, or None. Must not import it."""

    def load(self, module: str) -> ModuleType:
        """Import a module.

        Raises:
            ImportError: it is broken or absent.
        """


class InstalledPackages:
    """What the running interpreter can import."""

    def version(self, distribution: str) -> str | None:
        return _named_in_a_folder(distribution) or _recorded(distribution)

    def load(self, module: str) -> ModuleType:
        return importlib.import_module(module)


@contextmanager
def uninitialized(package: str) -> Iterator[None]:
    """Within, modules of a package are imported without what its ``__init__`` does.

    Afterwards the package is as if never imported, and the next import of it initializes it. One
    that is imported already stays as it is.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None:
        yield
        return
    bare = sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        if sys.modules.get(package) is bare:
            del sys.modules[package]


def _named_in_a_folder(distribution: str) -> str | None:
    """From the name of what an installer leaves behind, ``name-version.dist-info``."""
    suffix = ".dist-info"
    for folder in sys.path:
        for found in Path(folder).glob(f"{distribution.replace('-', '_')}-*{suffix}"):
            return found.name.removesuffix(suffix).partition("-")[2]
    return None


def _recorded(distribution: str) -> str | None:
    """As Python's own package says, which takes 2 MiB of a worker for good."""
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
