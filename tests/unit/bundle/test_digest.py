"""SHA-256 by Python's own means and by OpenSSL's: one digest, no more memory than need be."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.bundle.digest import LEAN_BYTES, PIECE_BYTES, bytes_digest, file_digest, sha256

NOT_WITH_OPENSSL = """
import sys
from edge_sdk.bundle.digest import LEAN_BYTES, bytes_digest, sha256
print(bytes_digest(bytes(LEAN_BYTES)), "_hashlib" in sys.modules)
print(bytes_digest(bytes(LEAN_BYTES + 1)), "_hashlib" in sys.modules)
"""


@pytest.fixture(params=["own", "openssl"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "own":
        monkeypatch.delitem(sys.modules, "_hashlib", raising=False)
    return str(request.param)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 300_001])
def test_bytes_and_files_have_the_digest_that_hashlib_gives(
    implementation: str, tmp_path: Path, size: int
) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    expected = hashlib.sha256(data).hexdigest()
    (tmp_path / "file").write_bytes(data)
    used_openssl = type(sha256(size)) is type(hashlib.sha256())
    assert used_openssl == (implementation == "openssl")
    assert bytes_digest(data) == bytes_digest(memoryview(data)) == expected
    assert file_digest(tmp_path / "file") == expected


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_pieces_add_up(pieces: list[bytes]) -> None:
    module = sys.modules.pop("_hashlib", None)
    try:
        found = sha256(0)
    finally:
        if module is not None:
            sys.modules["_hashlib"] = module
    for piece in pieces:
        found.update(piece)
    assert found.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_openssl_is_loaded_for_what_is_large_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_WITH_OPENSSL], capture_output=True, text=True, check=True
    )
    small, large = (line.split() for line in done.stdout.splitlines())
    assert small == [hashlib.sha256(bytes(LEAN_BYTES)).hexdigest(), "False"]
    assert large == [hashlib.sha256(bytes(LEAN_BYTES + 1)).hexdigest(), "True"]


def test_a_file_that_grew_is_read_to_its_end(implementation: str) -> None:
    # /proc says that its files are empty.
    text = Path("/proc/version")
    if not text.exists():
        pytest.skip("there is no /proc")
    assert file_digest(text) == hashlib.sha256(text.read_bytes()).hexdigest()
