"""The commands around a production broker, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_sdk.cli.broker import command
from edge_sdk.cli.credentials import server_files
from edge_sdk.cli.server import command as server_command


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EDGE_DATA", str(tmp_path / "fleet"))

    def run(*args: str, code: int = 0) -> Any:
        done = CliRunner().invoke(command, [*args, "--json"])
        assert done.exit_code == code, done.output
        document = json.loads(done.stdout)
        return document["error"]["code"] if code else document["result"]

    return run


def test_from_nothing_to_a_revoked_device(edge: Any, tmp_path: Path) -> None:
    assert edge("authority", "list", code=6) == "trust.no-authority"
    edge("authority", "init")
    assert edge("authority", "init", code=7) == "storage.file-exists"
    edge("mosquitto", "--host", "broker.example", "--out", str(tmp_path / "m"))
    edge("certificate", "cam-1", "--out", str(tmp_path / "cam-1"))
    assert (tmp_path / "cam-1" / "device.key").stat().st_mode & 0o077 == 0
    before = (tmp_path / "m" / "crl.pem").read_bytes()
    revoked = edge("revoke", "cam-1", "--mosquitto", str(tmp_path / "m"))
    assert revoked["revoked"] == 1
    assert (tmp_path / "m" / "crl.pem").read_bytes() != before
    assert edge("revoke", "cam-1", code=6) == "trust.no-certificate"
    listed = {each["name"]: each["revoked"] for each in edge("authority", "list")}
    assert listed["cam-1"] is not None
    assert listed["_server"] is None


def test_the_server_is_given_a_new_certificate(edge: Any, tmp_path: Path) -> None:
    edge("authority", "init")
    edge("authority", "renew")
    assert edge("revoke", "_server", "--keep-newest")["revoked"] == 1
    assert [each["revoked"] is None for each in edge("authority", "list")].count(True) == 1


def test_bad_input(edge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge("authority", "init")
    out = str(tmp_path / "out")
    assert edge("certificate", "a/b", "--out", out, code=4) == "config.bad-name"
    assert edge("mosquitto", "--host", "bücher", "--out", out, code=2) == "usage.bad-host"
    assert edge("mosquitto", "--host", "x", "--tenant", "#", "--out", out, code=4)
    monkeypatch.delenv("EDGE_DATA")
    assert edge("authority", "list", code=2) == "usage.no-authority-folder"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--broker-key", "key.pem"), "config.tls-incomplete"),
        (("--broker-ca", "missing.pem"), "config.bad-tls"),
        (("--broker-ca", "nonsense.pem"), "config.bad-tls"),
    ],
)
def test_a_server_with_wrong_tls_files_does_not_start(
    options: tuple[str, ...], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nonsense.pem").write_text("nonsense")
    run = ("run", "--data", "fleet", "--port", "0", "--broker", "mqtts://localhost")
    done = CliRunner().invoke(server_command, [*run, *options, "--json"])
    assert done.exit_code == 4, done.output
    assert json.loads(done.stdout)["error"]["code"] == code


def test_a_server_finds_its_authority_unless_told_otherwise(edge: Any, tmp_path: Path) -> None:
    edge("authority", "init")
    data = tmp_path / "fleet"
    own = server_files(data, None, None, None)
    assert [path.name for path in own.present()] == ["ca.pem", "server.pem", "server.key"]
    other = tmp_path / "other.pem"
    assert list(server_files(data, other, None, None).present()) == [other]
    assert list(server_files(tmp_path / "none", None, None, None).present()) == []
