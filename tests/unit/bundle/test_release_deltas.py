"""The publisher's side of deltas: found per earlier release, signed, and told about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from edge_sdk.bundle.check import check_manifest
from edge_sdk.bundle.needs import choose_deltas
from edge_sdk.bundle.release import create_release, open_release
from edge_sdk.cli.release import command
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.manifest import DeltaRef
from edge_sdk.delta.apply import apply_delta
from edge_sdk.delta.rivals import rival_sizes
from edge_sdk.errors import ContractError
from tests.fakes.updating import TinyRelease, tiny_release

OLD = tiny_release("1", size=60_000)
NEW = tiny_release("2", base=OLD)


def conversion_of(release: TinyRelease, folder: Path) -> Path:
    """The folder of a finished conversion."""
    folder.mkdir()
    for digest, data in release.blobs.items():
        (folder / digest).write_bytes(data)
    document = Conversion(
        created="2026-01-01T00:00:00+00:00",
        task=release.manifest.task,
        artifacts=release.manifest.artifacts,
        ladders=release.manifest.ladders,
        files={digest: digest for digest in release.blobs},
        provenance={},
    )
    (folder / "conversion.json").write_bytes(encode(document))
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "r1"
    create_release(
        conversion_of(OLD, tmp_path / "c1"), folder, name="digits", version="1", whole=True
    )
    return folder


def create(tmp_path: Path, *options: object) -> dict[str, Any]:
    conversion = tmp_path / "c2"
    if not conversion.exists():
        conversion_of(NEW, conversion)
    given = ["create", conversion, "-o", tmp_path / "r2", "--name", "digits", "--version", "2"]
    result = CliRunner().invoke(command, [*map(str, [*given, *options]), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["result"]
    return found


def test_a_base_gives_deltas_and_figures(old: Path, tmp_path: Path) -> None:
    told = create(tmp_path, "--base", old)["deltas"]
    release = open_release(tmp_path / "r2")
    (delta,) = release.manifest.deltas
    target, base = (release.blob_path(each).read_bytes() for each in (delta.target, delta.delta))
    data, made = base, bytearray(len(target))
    whole = (old / "blobs" / delta.base).read_bytes()
    for piece in apply_delta(data, memoryview(whole), len(target)):
        if piece is not None:
            made[piece[0] : piece[0] + len(piece[1])] = piece[1]
    assert made == target == NEW.model
    saving = next(each for each in told if each["delta_bytes"])
    assert saving["base"] == "1"
    assert saving["delta_bytes"] == len(data) < saving["full_bytes"] / 20
    assert saving["saved_bytes"] == len(target) - len(data)
    assert len(data) < saving["rivals"]["bsdiff4"]
    others = [each for each in told if not each["delta_bytes"]]
    assert others
    assert all(each["saved_bytes"] == 0 for each in others), "noise has no delta"


def test_without_a_base_there_are_none(tmp_path: Path) -> None:
    assert create(tmp_path)["deltas"] == []
    assert open_release(tmp_path / "r2").manifest.deltas == ()


def test_no_compare_leaves_general_tools_out(old: Path, tmp_path: Path) -> None:
    told = create(tmp_path, "--base", old, "--no-compare")["deltas"]
    assert told
    assert all(each["rivals"] == {} for each in told)


def test_a_base_that_is_no_release(tmp_path: Path) -> None:
    conversion = conversion_of(NEW, tmp_path / "c2")
    given = [conversion, "-o", tmp_path / "r2", "--name", "digits", "--version", "2"]
    result = CliRunner().invoke(command, ["create", *map(str, given), "--base", str(conversion)])
    assert result.exit_code == 7
    assert "storage.not-a-release" in result.output
    assert not (tmp_path / "r2").exists()


def test_general_tools_that_are_there_are_measured() -> None:
    found = rival_sizes(OLD.model, NEW.model)
    assert "bsdiff4" in found
    assert all(0 < size < len(NEW.model) for size in found.values())


def bad(delta: DeltaRef) -> str:
    with pytest.raises(ContractError) as caught:
        check_manifest(replace(NEW.manifest, deltas=(delta,)))
    return caught.value.code


def test_deltas_have_to_lead_somewhere() -> None:
    (right,) = NEW.manifest.deltas
    wrong = "0" * 64
    for broken in (
        replace(right, delta=wrong),
        replace(right, target=wrong),
        replace(right, base="../../etc/passwd"),
        replace(right, base=right.target),
    ):
        assert bad(broken) == "contract.inconsistent-manifest"


def test_a_delta_is_chosen_only_where_it_saves() -> None:
    (right,) = NEW.manifest.deltas
    size = NEW.manifest.blobs[right.delta].size_bytes
    assert choose_deltas(NEW.manifest, {right.target: size + 1}, lambda _: True)
    assert not choose_deltas(NEW.manifest, {right.target: size}, lambda _: True)
    assert not choose_deltas(NEW.manifest, {right.target: 10**6}, lambda _: False)
    assert not choose_deltas(NEW.manifest, {}, lambda _: True)
