"""Which runtime packages this machine has; injectable, so that negotiation can be tested."""

from __future__ import annotations

import importlib
import importlib.metadata
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
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def load(self, module: str) -> ModuleType:
        return importlib.import_module(module)
