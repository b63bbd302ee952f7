"""The commands around a production broker, as typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_sdk.cli.broker import command


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
