"""What a publisher puts on a mirror."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_sdk.bundle.digest import file_digest
from edge_sdk.bundle.mirror import lay_out
from edge_sdk.bundle.release import create_release, open_release
from edge_sdk.cli.release import command
from edge_sdk.contracts.mirror import blob_url
from edge_sdk.errors import ConfigError
from tests.fakes.storage import FaultyStorage, PowerCut
from tests.fakes.updating import write_conversion

URL = "https://models.example/fleet"


@pytest.fixture
def conversion(tmp_path: Path) -> Path:
    return write_conversion(tmp_path / "conversion")


def test_the_address_is_in_the_signed_manifest(conversion: Path, tmp_path: Path) -> None:
    made = create_release(conversion, tmp_path / "r", name="m", version="1", mirror=URL + "/")
    assert made.mirror == URL
    digest = next(iter(made.blobs))
    assert blob_url(made.mirror, digest) == f"{URL}/{digest}"
    with pytest.raises(ConfigError, match="bad-mirror"):
        create_release(conversion, tmp_path / "r2", name="m", version="1", mirror="s3://bucket")
    assert not (tmp_path / "r2").exists()


def test_blobs_lie_by_digest_and_are_copied_once(conversion: Path, tmp_path: Path) -> None:
    create_release(conversion, tmp_path / "r", name="m", version="1", mirror=URL)
    release = open_release(tmp_path / "r")
    for cut in range(1, 4):
        with pytest.raises(PowerCut):
            lay_out(release, tmp_path / "mirror", storage=FaultyStorage(cut_at=cut))
    assert sorted(lay_out(release, tmp_path / "mirror")) == sorted(release.manifest.blobs)
    names = {path.name: file_digest(path) for path in (tmp_path / "mirror").iterdir()}
    assert {name for name, digest in names.items() if name == digest} >= set(release.manifest.blobs)
    assert lay_out(release, tmp_path / "mirror") == []


def test_the_commands(conversion: Path, tmp_path: Path) -> None:
    def run(*args: str) -> dict[str, object]:
        done = CliRunner().invoke(command, [*args, "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, object] = json.loads(done.stdout)["result"]
        return found

    folder, target = str(tmp_path / "r"), str(tmp_path / "mirror")
    options = ("--name", "m", "--version", "1", "--mirror", URL)
    assert run("create", str(conversion), "-o", folder, *options)["mirror"] == URL
    laid = run("mirror", folder, "--out", target)
    assert laid["mirror"] == URL and laid["added"]
    assert run("mirror", folder, "--out", target)["added"] == []
