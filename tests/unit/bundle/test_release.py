"""Release folders and the commands around them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from edge_sdk.bundle.release import create_release, open_release, sign_release
from edge_sdk.bundle.signing import generate_key, load_key
from edge_sdk.bundle.trust import load_trust, trust_root, verify_manifest
from edge_sdk.cli.release import command
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.errors import ContractError, EdgeError, TrustError
from tests.fakes.storage import FaultyStorage, PowerCut
from tests.fakes.updating import write_conversion

KEY = generate_key()
TRUST = trust_root([KEY.public], [])


@pytest.fixture
def conversion(tmp_path: Path) -> Path:
    """The folder of a finished conversion, with bytes for models."""
    return write_conversion(tmp_path / "conversion")


def create(conversion: Path, out: Path, **options: Any) -> Path:
    create_release(conversion, out, name="digits", version="1", **options)
    return out


def test_create_sign_open(conversion: Path, tmp_path: Path) -> None:
    folder = create(conversion, tmp_path / "out" / "r1", sequence=7)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["r1"]
    unsigned = open_release(folder)
    assert unsigned.envelope is None
    assert (unsigned.manifest.sequence, unsigned.manifest.provenance) == (7, {"torch": "2.13.0"})
    with pytest.raises(TrustError, match="unsigned"):
        open_release(folder, TRUST)
    with pytest.raises(TrustError, match="unsigned"):
        _ = unsigned.envelope_ref
    sign_release(folder, KEY)
    release = open_release(folder, TRUST)
    assert release.envelope_bytes is not None
    assert verify_manifest(release.envelope_bytes, TRUST) == release.manifest
    assert release.envelope_ref.size_bytes == len(release.envelope_bytes)
    assert release.size_bytes == sum(
        release.blob_path(digest).stat().st_size for digest in release.manifest.blobs
    )


def test_a_second_signature_is_added(conversion: Path, tmp_path: Path) -> None:
    folder, other = create(conversion, tmp_path / "r"), generate_key()
    sign_release(folder, KEY)
    assert len(sign_release(folder, other).signatures) == 2
    assert len(sign_release(folder, KEY).signatures) == 2
    open_release(folder, trust_root([KEY.public, other.public], [], release_threshold=2))


def test_another_key_is_not_trusted(conversion: Path, tmp_path: Path) -> None:
    folder = create(conversion, tmp_path / "r")
    sign_release(folder, generate_key())
    with pytest.raises(TrustError, match="bad-signature"):
        open_release(folder, TRUST)


def test_every_file_is_guarded(conversion: Path, tmp_path: Path) -> None:
    """Changing one byte of any file of a signed release is noticed, and nothing gets signed."""
    folder = create(conversion, tmp_path / "r")
    sign_release(folder, KEY)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        good = path.read_bytes()
        path.write_bytes(good[:-2] + bytes([good[-2] ^ 1]) + good[-1:])
        with pytest.raises(EdgeError):
            open_release(folder, TRUST)
        path.write_bytes(good)
    victim = next(iter((folder / "blobs").iterdir()))
    victim.unlink()
    with pytest.raises(EdgeError, match="blob-missing"):
        sign_release(folder, KEY)


def rewrite(conversion: Path, **changes: Any) -> None:
    path = conversion / "conversion.json"
    document = msgspec.json.decode(path.read_bytes(), type=Conversion)
    path.write_bytes(encode(msgspec.structs.replace(document, **changes)))


def break_file(conversion: Path) -> None:
    next((conversion / "artifacts").iterdir()).write_bytes(b"other")


def lose_file(conversion: Path) -> None:
    next((conversion / "artifacts").iterdir()).unlink()


def leave_folder(conversion: Path) -> None:
    (conversion.parent / "secret").write_bytes(b"secret")
    files = msgspec.json.decode(
        (conversion / "conversion.json").read_bytes(), type=Conversion
    ).files
    rewrite(conversion, files=dict.fromkeys(files, "../secret"))


def lose_artifact(conversion: Path) -> None:
    rewrite(conversion, artifacts={})


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (break_file, "contract.incomplete-conversion"),
        (lose_file, "contract.incomplete-conversion"),
        (leave_folder, "contract.incomplete-conversion"),
        (lambda folder: rewrite(folder, files={}), "contract.incomplete-conversion"),
        (lose_artifact, "contract.inconsistent-manifest"),
        (lambda folder: rewrite(folder, ladders={"rpi4": ()}), "contract.inconsistent-manifest"),
        (lambda folder: (folder / "conversion.json").write_text("{"), "contract.malformed"),
        (lambda folder: (folder / "conversion.json").unlink(), "contract.no-conversion"),
    ],
)
def test_a_broken_conversion_leaves_nothing_behind(
    conversion: Path, tmp_path: Path, harm: Any, code: str
) -> None:
    harm(conversion)
    with pytest.raises(EdgeError) as caught:
        create(conversion, tmp_path / "out" / "r")
    assert caught.value.code == code
    assert list((tmp_path / "out").glob("*")) + list((tmp_path / "out").glob(".*")) == []


def test_a_release_is_never_overwritten(conversion: Path, tmp_path: Path) -> None:
    folder = create(conversion, tmp_path / "r")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(EdgeError, match="folder-exists"):
        create(conversion, folder)
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(("name", "version"), [("a/b", "1"), ("digits", "../1"), ("", "1")])
def test_unsafe_names(conversion: Path, tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(EdgeError, match="bad-name"):
        create_release(conversion, tmp_path / "r", name=name, version=version)


def test_a_full_disk_or_a_cut_leaves_no_release(conversion: Path, tmp_path: Path) -> None:
    counter = FaultyStorage()
    create(conversion, tmp_path / "whole", storage=counter)
    for step in range(1, counter.steps + 1):
        out = tmp_path / "out" / "r"
        with pytest.raises(EdgeError, match="disk-full"):
            create(conversion, out, storage=FaultyStorage(full_at=step))
        assert list(out.parent.iterdir()) == []
        with pytest.raises(PowerCut):
            create(conversion, out, storage=FaultyStorage(step))
        assert not out.exists()
    create(conversion, out)
    open_release(out)


def test_a_manifest_from_the_future(conversion: Path, tmp_path: Path) -> None:
    folder = create(conversion, tmp_path / "r")
    document = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(document | {"schema": 99}))
    with pytest.raises(ContractError, match="too-new"):
        open_release(folder)
    (folder / "manifest.json").write_text(json.dumps(document | {"later": {"field": 1}}))
    assert open_release(folder).manifest.version == "1"


@pytest.mark.parametrize(
    "text",
    [
        '{"release_keys": {"aa": "AA=="}}',
        '{"release_threshold": 0}',
        '{"release_threshold": 2}',
        '{"release_keys": {"0123456789abcdef": "' + "A" * 43 + '="}}',
        "[]",
        "",
    ],
)
def test_trust_files_that_cannot_be(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trust.json"
    path.write_text(text)
    with pytest.raises(EdgeError) as caught:
        load_trust(path)
    assert caught.value.code in {"trust.bad-root", "contract.malformed"}


def run(*arguments: object, expect: int = 0) -> dict[str, Any]:
    """One command with ``--json``; the decoded document."""
    result = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    assert result.exit_code == expect, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_the_path_by_hand(conversion: Path, tmp_path: Path) -> None:
    key, trust, folder = tmp_path / "k.pem", tmp_path / "trust.json", tmp_path / "r"
    made = run("key", "create", key)["result"]
    assert run("key", "show", key)["result"]["keyid"] == made["keyid"]
    run("key", "trust", "--release-key", f"{key}.pub", "--fleet-key", key, "-o", trust)
    assert set(load_trust(trust).fleet_keys) == {made["keyid"]}
    created = run("create", conversion, "-o", folder, "--name", "digits", "--version", "2")
    assert created["result"]["version"] == "2"
    assert created["result"]["derived"] == 0
    assert set(created["result"]["download_bytes"]) == {"rpi4"}
    assert created["next"]
    failed = run("verify", folder, "--trust", trust, expect=6)
    assert failed["error"]["code"] == "trust.unsigned"
    assert run("sign", folder, "--key", key)["result"]["signatures"] == [made["keyid"]]
    assert run("verify", folder, "--trust", trust)["result"]["signatures"] == [made["keyid"]]
    assert run("show", folder)["result"]["blobs"] == 3


def test_people_get_words_and_exit_codes(conversion: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["show", str(tmp_path / "nothing")])
    assert result.exit_code == 7
    assert "error[storage.not-a-release]" in result.stderr
    assert "Hint:" in result.stderr
    folder = create(conversion, tmp_path / "r")
    shown = CliRunner().invoke(command, ["show", str(folder)])
    assert shown.exit_code == 0
    assert "digits 1" in shown.stdout
    assert "edge release sign" in shown.stdout


def test_a_protected_key_signs_with_its_passphrase(
    conversion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, folder = tmp_path / "k.pem", create(conversion, tmp_path / "r")
    monkeypatch.setenv("EDGE_KEY_PASSPHRASE", "secret")
    run("key", "create", key, "--passphrase")
    assert load_key(key, b"secret").public
    run("sign", folder, "--key", key)
    monkeypatch.setenv("EDGE_KEY_PASSPHRASE", "wrong")
    assert run("sign", folder, "--key", key, expect=6)["error"]["code"] == "trust.wrong-passphrase"
    monkeypatch.delenv("EDGE_KEY_PASSPHRASE")
    failed = run("sign", folder, "--key", key, expect=6)
    assert failed["error"]["code"] == "trust.passphrase-needed"


def test_help_works_before_anything_heavy_is_imported() -> None:
    script = (
        "import sys; from edge_sdk.cli.release import command;"
        "command(['--help'], standalone_mode=False);"
        "heavy = {'cryptography', 'torch', 'numpy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "publish" in result.stdout
