"""A stand-in for the installed packages: real modules, chosen versions."""

from __future__ import annotations

import importlib
from types import ModuleType


class FakePackages:
    """Implements :class:`edge_sdk.runtime.packages.Packages`."""

    def __init__(
        self, versions: dict[str, str], modules: dict[str, ModuleType] | None = None
    ) -> None:
        self.versions = versions
        self.modules = modules or {}
        self.loaded: list[str] = []

    def version(self, distribution: str) -> str | None:
        return self.versions.get(distribution)

    def load(self, module: str) -> ModuleType:
        self.loaded.append(module)
        return self.modules.get(module) or importlib.import_module(module)
