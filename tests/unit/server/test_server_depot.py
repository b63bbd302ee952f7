"""Release files: uploads are whole or absent, and only whole, signed releases are taken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from edge_sdk.bundle.blobs import blob_ref
from edge_sdk.bundle.signing import sign
from edge_sdk.contracts.base import encode
from edge_sdk.contracts.envelope import DESIRED_TYPE, Envelope
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError, StorageError, TrustError
from edge_sdk.server import depot as depot_module
from edge_sdk.server.depot import Depot
from tests.fakes.storage import FaultyStorage, PowerCut
from tests.fakes.updating import OTHER_KEY, RELEASE_KEY, TinyRelease, tiny_release

DATA = bytes(range(256)) * 1000
DIGEST = blob_ref(DATA).digest


def put(depot: Depot, data: bytes) -> str:
    digest = blob_ref(data).digest
    with depot.upload(digest) as upload:
        for start in range(0, len(data), 50_000):
            upload.write(data[start : start + 50_000])
        upload.finish()
    return digest


def put_all(depot: Depot, release: TinyRelease) -> None:
    for data in release.blobs.values():
        put(depot, data)


def folder_of(path: Path) -> set[str]:
    return {entry.name for entry in (path / "blobs").iterdir()}


def test_an_upload_appears_when_it_is_finished(tmp_path: Path) -> None:
    depot = Depot(tmp_path, DiskStorage())
    assert depot.size_of(DIGEST) is None
    put(depot, DATA)
    assert depot.size_of(DIGEST) == len(DATA)
    assert depot.chunk(DIGEST, 0) == DATA[:65536]
    assert depot.chunk(DIGEST, 3) == DATA[3 * 65536 :]
    assert depot.chunk(DIGEST, 4) is None
    assert depot.chunk("0" * 64, 0) is None


def test_an_unfinished_or_wrong_upload_leaves_nothing(tmp_path: Path) -> None:
    depot = Depot(tmp_path, DiskStorage())
    with depot.upload(DIGEST) as upload:
        upload.write(DATA[:1000])
    with (
        pytest.raises(TrustError, match="blob-damaged"),
        depot.upload(DIGEST) as upload,
    ):
        upload.write(DATA + b"!")
        upload.finish()
    assert folder_of(tmp_path) == set()


def test_a_blob_that_is_too_large_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depot_module, "MAX_BLOB_BYTES", 1000)
    with (
        pytest.raises(StorageError, match="blob-too-large"),
        Depot(tmp_path, DiskStorage()).upload(DIGEST) as upload,
    ):
        upload.write(DATA)
    assert folder_of(tmp_path) == set()


@pytest.mark.parametrize("name", ["../token", "a" * 63, "A" * 64, ""])
def test_only_digests_name_blobs(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContractError, match="bad-blob-ref"):
        Depot(tmp_path, DiskStorage()).upload(name)


def test_a_power_cut_at_any_step_leaves_a_blob_or_nothing(tmp_path: Path) -> None:
    cut_at = 0
    while True:
        cut_at += 1
        folder = tmp_path / str(cut_at)
        try:
            put(Depot(folder, FaultyStorage(cut_at)), DATA)
        except PowerCut:
            depot = Depot(folder, DiskStorage())
            assert depot.size_of(DIGEST) in (None, len(DATA))
            put(depot, DATA)
            depot.blobs.verify(DIGEST)
            continue
        break
    assert cut_at == 4  # three steps, each cut once


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    for full_at in (1, 2):
        folder = tmp_path / str(full_at)
        with pytest.raises(StorageError, match="disk-full"):
            put(Depot(folder, FaultyStorage(full_at=full_at)), DATA)
        assert folder_of(folder) == set()


def test_a_whole_signed_release_is_taken(tmp_path: Path) -> None:
    depot, release = Depot(tmp_path, DiskStorage()), tiny_release("1")
    put_all(depot, release)
    manifest, keyids = depot.check_release(release.envelope)
    assert manifest == release.manifest
    assert keyids == (RELEASE_KEY.keyid,)
    ref = depot.keep_release(manifest, release.envelope)
    assert ref == depot.envelope_ref(release.digest)
    sizes = depot.blobs_of(release.digest)
    assert next(iter(sizes)) == release.digest
    assert set(sizes) == {release.digest, *release.blobs}
    stored = tmp_path / "releases" / "digits" / "1"
    assert (stored / "envelope.json").read_bytes() == release.envelope
    assert (stored / "manifest.json").read_bytes() == encode(manifest)


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    depot, release = Depot(tmp_path, DiskStorage()), tiny_release("1")
    with pytest.raises(StorageError, match="blob-missing"):
        depot.check_release(release.envelope)


def test_a_blob_damaged_on_the_servers_disk_is_found(tmp_path: Path) -> None:
    depot, release = Depot(tmp_path, DiskStorage()), tiny_release("1")
    put_all(depot, release)
    path = depot.blobs.path(next(iter(release.blobs)))
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(TrustError, match="blob-damaged"):
        depot.check_release(release.envelope)


def test_signatures_are_asked_for(tmp_path: Path) -> None:
    trusting = Depot(tmp_path, DiskStorage(), {RELEASE_KEY.keyid: RELEASE_KEY.public})
    release = tiny_release("1")
    put_all(trusting, release)
    trusting.check_release(release.envelope)
    stranger = tiny_release("1", key=OTHER_KEY)
    with pytest.raises(TrustError, match="untrusted-signer"):
        trusting.check_release(stranger.envelope)
    envelope = msgspec.json.decode(release.envelope, type=Envelope)
    unsigned = encode(msgspec.structs.replace(envelope, signatures=()))
    with pytest.raises(TrustError, match="unsigned"):
        Depot(tmp_path, DiskStorage()).check_release(unsigned)
    other_type = encode(sign(DESIRED_TYPE, envelope.payload, RELEASE_KEY))
    with pytest.raises(TrustError, match="unsigned"):
        trusting.check_release(other_type)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"payloadType":1}'])
def test_garbage_is_not_a_release(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ContractError):
        Depot(tmp_path, DiskStorage()).check_release(data)


def test_sweeping_removes_old_leftovers_only(tmp_path: Path) -> None:
    depot, release = Depot(tmp_path, DiskStorage()), tiny_release("1")
    put_all(depot, release)
    depot.keep_release(release.manifest, release.envelope)
    old, young = put(depot, b"old"), put(depot, b"young")
    partial = depot.blobs.folder / "half.part"
    partial.write_bytes(b"h")
    long_ago = time.time() - depot_module.ORPHAN_SECONDS - 60
    for name in (old, "half.part", release.digest, *release.blobs):
        os.utime(depot.blobs.folder / name, (long_ago, long_ago))
    assert depot.sweep([release.digest]) == 2
    assert folder_of(tmp_path) == {young, release.digest, *release.blobs}
