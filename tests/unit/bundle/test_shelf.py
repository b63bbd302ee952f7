"""Files of a release that are built: exact, verified, and never left on the disk."""

from __future__ import annotations

import hashlib
import mmap
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_sdk.bundle.blobs import BlobStore, blob_ref
from edge_sdk.bundle.check import MAX_DERIVED_BYTES, check_manifest
from edge_sdk.bundle.shelf import Shelf
from edge_sdk.contracts.manifest import Derivation
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError, EdgeError
from edge_sdk.recipes.find import Base
from tests.fakes.updating import tiny_release

SOURCE = random.Random(7)
BASE = SOURCE.randbytes(50_000)
NARROW = BASE[1000:9000] + b"another header" + BASE[20_000:26_000]
DIGEST = blob_ref(NARROW).digest


class Bench:
    """A folder of blobs in which one file is built from another."""

    def __init__(self, folder: Path) -> None:
        self.store = BlobStore(folder, DiskStorage())
        recipe = Base(BASE).recipe(NARROW)
        assert recipe is not None
        self.base, self.recipe = self.store.put(BASE).digest, self.store.put(recipe).digest
        self.size = len(NARROW)

    @property
    def shelf(self) -> Shelf:
        how = Derivation(base=self.base, recipe=self.recipe, size_bytes=self.size)
        return Shelf(self.store, {DIGEST: how})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "blobs")


def test_a_built_file_is_the_file(bench: Bench) -> None:
    before = set(bench.store.digests())
    assert bench.shelf.is_built(DIGEST)
    assert bench.shelf.read(DIGEST) == NARROW
    with bench.shelf.opened(DIGEST) as path:
        assert path.read_bytes() == NARROW
        handle = path.open("rb")
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        handle.close()
    assert bytes(mapped) == NARROW, "a runtime may go on using what it has mapped"
    bench.shelf.check(DIGEST)
    assert bench.store.digests() == before


def test_where_open_files_have_no_paths_a_temporary_file_serves(
    bench: Bench, tmp_path: Path
) -> None:
    derived = {DIGEST: Derivation(base=bench.base, recipe=bench.recipe, size_bytes=bench.size)}
    shelf = Shelf(bench.store, derived, descriptors=tmp_path / "nothing")
    with shelf.opened(DIGEST) as path:
        assert path.read_bytes() == NARROW
    assert not path.exists() and not path.parent.exists()


def test_memory_and_descriptors_come_back(bench: Bench) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("no /proc here")
    with bench.shelf.opened(DIGEST):
        pass
    before = len(list(folder.iterdir()))
    for _ in range(20):
        with bench.shelf.opened(DIGEST):
            pass
    bench.store.path(bench.base).write_bytes(bytes(len(BASE)))
    for _ in range(20):
        with pytest.raises(EdgeError), bench.shelf.opened(DIGEST):
            pass
    assert len(list(folder.iterdir())) == before


def test_a_stored_file_is_used_as_it_is(bench: Bench) -> None:
    bench.store.put(NARROW)
    assert not bench.shelf.is_built(DIGEST)
    with bench.shelf.opened(DIGEST) as path:
        assert path == bench.store.path(DIGEST)
    bench.store.path(DIGEST).write_bytes(b"x" + NARROW[1:])
    with pytest.raises(EdgeError, match="blob-damaged"), bench.shelf.opened(DIGEST):
        pass


def harm(name: str, bench: Bench) -> None:
    base, recipe = bench.store.path(bench.base), bench.store.path(bench.recipe)
    if name == "flipped bit in the base":
        base.write_bytes(BASE[:5000] + bytes([BASE[5000] ^ 1]) + BASE[5001:])
    elif name == "shorter base":
        base.write_bytes(BASE[:-1])
    elif name == "empty base":
        base.write_bytes(b"")
    elif name == "no base":
        base.unlink()
    elif name == "no recipe":
        recipe.unlink()
    elif name == "flipped bit in the recipe":
        data = recipe.read_bytes()
        recipe.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif name == "another size":
        bench.size -= 1
    elif name == "another base":
        bench.base = bench.store.put(random.Random(8).randbytes(len(BASE))).digest
    elif name == "another recipe":
        other = Base(BASE).recipe(NARROW[:-1] + b"?")
        assert other is not None
        bench.recipe = bench.store.put(other).digest
    elif name == "no recipe at all":
        bench.recipe = bench.store.put(b"not a recipe").digest


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("flipped bit in the base", "trust.blob-damaged"),
        ("shorter base", "contract.bad-recipe"),
        ("empty base", "storage.unreadable"),
        ("no base", "storage.blob-missing"),
        ("no recipe", "storage.blob-missing"),
        ("flipped bit in the recipe", "trust.blob-damaged"),
        ("another size", "contract.bad-recipe"),
        ("another base", "trust.wrong-result"),
        ("another recipe", "trust.wrong-result"),
        ("no recipe at all", "contract.bad-recipe"),
    ],
)
def test_nothing_wrong_is_handed_out(bench: Bench, name: str, code: str) -> None:
    harm(name, bench)
    for use in (bench.shelf.read, bench.shelf.check):
        with pytest.raises(EdgeError) as caught:
            use(DIGEST)
        assert caught.value.code == code
    with pytest.raises(EdgeError) as caught, bench.shelf.opened(DIGEST):
        pytest.fail("the block was entered")
    assert caught.value.code == code


def test_it_works_again_once_the_base_is_whole_again(bench: Bench) -> None:
    harm("flipped bit in the base", bench)
    with pytest.raises(EdgeError):
        bench.shelf.read(DIGEST)
    bench.store.path(bench.base).write_bytes(BASE)
    assert hashlib.sha256(bench.shelf.read(DIGEST)).hexdigest() == DIGEST


def derivations() -> dict[str, tuple[str, Derivation]]:
    good = tiny_release("1", packed=True).manifest
    ((made, how),) = good.derived.items()

    def changed(**fields: object) -> tuple[str, Derivation]:
        whole = {"base": how.base, "recipe": how.recipe, "size_bytes": how.size_bytes}
        return made, Derivation(**{**whole, **fields})  # type: ignore[arg-type]

    return {
        "good": (made, how),
        "base not listed": changed(base="0" * 64),
        "recipe not listed": changed(recipe="0" * 64),
        "built from itself": changed(base=made),
        "empty": changed(size_bytes=0),
        "negative": changed(size_bytes=-1),
        "too large": changed(size_bytes=MAX_DERIVED_BYTES + 1),
        "no digest": ("../../etc/passwd", how),
    }


@pytest.mark.parametrize("name", derivations())
def test_manifests_are_consistent_about_what_is_built(name: str) -> None:
    good = tiny_release("1", packed=True).manifest
    made, how = derivations()[name]
    manifest = replace(good, derived={**good.derived, made: how})
    if name == "good":
        check_manifest(manifest)
        return
    with pytest.raises(ContractError, match="inconsistent-manifest"):
        check_manifest(manifest)
