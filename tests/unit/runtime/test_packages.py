"""Versions of installed distributions, found without loading Python's own machinery for it."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from edge_sdk.runtime.packages import InstalledPackages


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
