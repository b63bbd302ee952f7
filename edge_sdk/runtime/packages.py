"""Which runtime packages this machine has; injectable, so that negotiation can be tested."""

from __future__ import annotations

import importlib
import sys
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
