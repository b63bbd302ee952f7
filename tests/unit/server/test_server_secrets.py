"""The data folder's secrets and its lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.errors import StorageError, TrustError
from edge_sdk.server.keys import access_token, fleet_key, locked_data, page_cookie


def test_token_and_key_are_made_once_and_kept_private(tmp_path: Path) -> None:
    token, key = access_token(tmp_path), fleet_key(tmp_path)
    assert len(token) >= 40
    assert access_token(tmp_path) == token
    assert fleet_key(tmp_path).public == key.public
    for name in ("token", "fleet.key"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fleet.key", "fleet.key.pub", "token"]


def test_the_page_cookie_is_not_the_token(tmp_path: Path) -> None:
    token = access_token(tmp_path)
    assert token not in page_cookie(token)
    assert page_cookie(token) != page_cookie(token + "x")


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet.key").write_text("garbage")
    with pytest.raises(TrustError, match="bad-key"):
        fleet_key(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError), locked_data(tmp_path / "file" / "data"):
        pass


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from edge_sdk.errors import EdgeError\n"
        "from edge_sdk.server.keys import locked_data\n"
        "try:\n"
        "    with locked_data(Path(sys.argv[1])): print('got it')\n"
        "except EdgeError as error: print(error.code)\n"
    )

    def second() -> str:
        command = [sys.executable, "-c", script, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()

    with locked_data(tmp_path):
        assert second() == "storage.data-in-use"
    assert second() == "got it"
