"""Versions of installed distributions, found without loading Python's own machinery for it."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk.runtime.litert import interpreter_module
from edge_sdk.runtime.packages import InstalledPackages, uninitialized


@pytest.mark.parametrize("name", ["numpy", "msgspec", "pytest", "edge-sdk", "no-such-thing"])
def test_versions_are_those_of_the_metadata(name: str) -> None:
    try:
        expected = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        expected = None
    assert InstalledPackages().version(name) == expected


def test_every_folder_of_the_path_is_looked_through_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("first", "2.1.0"), ("second", "9.9")):
        (tmp_path / folder / f"some_runtime-{version}.dist-info").mkdir(parents=True)
    (tmp_path / "second" / "some_runtime_extras-1.0.dist-info").mkdir()
    (tmp_path / "archive.zip").write_bytes(b"")
    paths = [str(tmp_path / name) for name in ("gone", "archive.zip", "first", "second")]
    monkeypatch.setattr(sys, "path", paths)
    assert InstalledPackages().version("some-runtime") == "2.1.0"
    assert InstalledPackages().version("some") is None


def test_what_an_old_installer_left_is_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "old_runtime-1.5.egg-info"
    record.mkdir()
    (record / "PKG-INFO").write_text("Metadata-Version: 1.2\nName: old-runtime\nVersion: 1.5\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert InstalledPackages().version("old-runtime") == "1.5"


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose beginning says that it began."""
    name = "heavy_runtime"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("began = True\n")
    (tmp_path / name / "part.py").write_text("from heavy_runtime import other\n")
    (tmp_path / name / "other.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_a_module_comes_without_the_beginning_of_its_package(heavy: str) -> None:
    with uninitialized(heavy):
        part = importlib.import_module(f"{heavy}.part")
        assert not hasattr(sys.modules[heavy], "began")
    assert heavy not in sys.modules
    later = importlib.import_module(heavy)
    assert later.began
    assert importlib.import_module(f"{heavy}.part") is part


def test_a_package_that_has_begun_is_left_alone(heavy: str) -> None:
    before = importlib.import_module(heavy)
    with uninitialized(heavy):
        importlib.import_module(f"{heavy}.part")
    assert sys.modules[heavy] is before


def test_a_module_that_needs_the_beginning_gets_it(heavy: str, tmp_path: Path) -> None:
    (tmp_path / heavy / "needs.py").write_text("from heavy_runtime import began\n")
    assert interpreter_module(InstalledPackages(), f"{heavy}.needs").began


def test_a_package_that_is_not_there_is_told_by_the_import(heavy: str) -> None:
    with uninitialized("no_such_package"), pytest.raises(ImportError):
        importlib.import_module("no_such_package.part")
