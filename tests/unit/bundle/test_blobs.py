"""Content-addressed blobs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.bundle.blobs import BlobStore, blob_ref, check_blob_ref, chunk_size
from edge_sdk.contracts.manifest import CHUNK_BYTES, BlobRef
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError, StorageError, TrustError
from tests.fakes.storage import FaultyStorage, PowerCut

SIZES = st.integers(0, 3 * CHUNK_BYTES + 2)


@settings(max_examples=30)
@given(SIZES)
def test_a_reference_describes_its_bytes(tmp_path_factory: pytest.TempPathFactory, n: int) -> None:
    data = bytes(i * 7 % 251 for i in range(n))
    ref = blob_ref(data)
    check_blob_ref(ref)
    assert ref.digest == hashlib.sha256(data).hexdigest()
    sizes = [chunk_size(ref, index) for index in range(len(ref.chunks))]
    assert sum(sizes) == ref.size_bytes == n
    for index, digest in enumerate(ref.chunks):
        piece = data[index * CHUNK_BYTES :][: sizes[index]]
        assert hashlib.sha256(piece).hexdigest() == digest
    path = tmp_path_factory.mktemp("blob") / "b"
    path.write_bytes(data)
    assert blob_ref(path) == ref


@pytest.mark.parametrize(
    "ref",
    [
        BlobRef(digest="../../etc/passwd", size_bytes=0, chunks=()),
        BlobRef(digest="A" * 64, size_bytes=0, chunks=()),
        BlobRef(digest="a" * 64, size_bytes=-1, chunks=()),
        BlobRef(digest="a" * 64, size_bytes=10, chunks=()),
        BlobRef(digest="a" * 64, size_bytes=10, chunks=("b" * 64, "b" * 64)),
        BlobRef(digest="a" * 64, size_bytes=10, chunks=("b" * 63 + "\n",)),
    ],
)
def test_impossible_references(ref: BlobRef) -> None:
    with pytest.raises(ContractError, match="bad-blob-ref"):
        check_blob_ref(ref)


def test_store(tmp_path: Path) -> None:
    storage = FaultyStorage()
    store = BlobStore(tmp_path / "blobs", storage)
    assert store.digests() == set()
    ref = store.put(b"model")
    steps = storage.steps
    assert store.put(b"model") == ref
    assert storage.steps == steps, "written twice"
    assert store.has(ref)
    assert store.read(ref.digest) == b"model"
    store.verify(ref.digest)
    assert store.digests() == {ref.digest}
    store.remove(ref.digest)
    assert not store.has(ref)
    for use in (store.read, store.verify):
        with pytest.raises(StorageError, match="blob-missing"):
            use(ref.digest)


def test_a_damaged_blob_is_never_returned(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, DiskStorage())
    ref = store.put(b"model")
    store.path(ref.digest).write_bytes(b"mOdel")
    for use in (store.read, store.verify):
        with pytest.raises(TrustError, match="blob-damaged"):
            use(ref.digest)


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, DiskStorage())
    for name in ("../x", "", "a" * 63, "g" * 64, "a" * 64 + "\n"):
        with pytest.raises(ContractError, match="bad-blob-ref"):
            store.path(name)


def test_a_cut_while_writing_leaves_no_blob_or_a_whole_one(tmp_path: Path) -> None:
    data = bytes(100_000)
    for cut in range(1, 5):
        store = BlobStore(tmp_path / str(cut), FaultyStorage(cut, forgetful=True))
        with pytest.raises(PowerCut):
            store.put(data)
        for digest in store.digests():
            store.verify(digest)
