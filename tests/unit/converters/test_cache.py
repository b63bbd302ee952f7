"""The cache of passes: never wrong, never in the way, never larger than allowed."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.cache import Cache, default_folder, key_of
from edge_sdk.errors import UsageError
from tests.fakes.storage import FaultyStorage, PowerCut

TEXT = st.text("abc", min_size=1, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda x: st.lists(x), max_leaves=4
)


def key(number: int) -> str:
    return key_of("test", 1, tools={}, inputs={}, options={"number": number})


def file_of(folder: Path, data: bytes, name: str = "made") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def store(cache: Cache, number: int, folder: Path, data: bytes) -> bool:
    made = file_of(folder, data)
    return cache.put(key(number), "test", {"n": number}, {"file": made}, host="here")


def load(cache: Cache, number: int, folder: Path) -> bytes | None:
    target = folder / "restored"
    target.unlink(missing_ok=True)
    hit = cache.get(key(number), {"file": target})
    if hit is None:
        assert not target.exists()
        return None
    assert hit.answer == {"n": number}
    return target.read_bytes()


def test_what_was_put_comes_back_with_its_age(tmp_path: Path) -> None:
    now = [1000.0]
    cache = Cache(tmp_path / "cache", clock=lambda: now[0])
    assert load(cache, 1, tmp_path) is None
    assert store(cache, 1, tmp_path, b"model")
    now[0] = 1060.0
    assert load(cache, 1, tmp_path) == b"model"
    hit = cache.get(key(1))
    assert hit is not None
    assert (hit.age_s, hit.host) == (60.0, "here")
    assert load(cache, 2, tmp_path) is None


@given(st.dictionaries(TEXT, JSON), st.dictionaries(TEXT, JSON))
def test_keys_differ_exactly_when_the_options_do(
    one: dict[str, object], two: dict[str, object]
) -> None:
    keys = [key_of("p", 1, tools={}, inputs={}, options=options) for options in (one, two)]
    same = repr(sorted(one.items())) == repr(sorted(two.items()))
    assert (keys[0] == keys[1]) == same


def test_every_part_of_a_key_matters() -> None:
    def made(what: str = "p", version: int = 1, tool: str = "1", given: str = "a") -> str:
        return key_of(what, version, tools={"t": tool}, inputs={"i": given}, options={})

    keys = {made(), made(what="q"), made(version=2), made(tool="2"), made(given="b")}
    assert len(keys) == 5


@settings(max_examples=60, deadline=None)
@given(
    position=st.floats(0, 0.999),
    which=st.sampled_from(["keys", "blobs"]),
    change=st.sampled_from(["flip", "cut", "grow"]),
)
def test_damage_anywhere_is_noticed_and_rebuilt(
    tmp_path_factory: pytest.TempPathFactory, position: float, which: str, change: str
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    cache = Cache(folder / "cache")
    store(cache, 1, folder, b"the weights")
    (damaged,) = (cache.folder / which).iterdir()
    data = bytearray(damaged.read_bytes())
    if change == "flip":
        data[int(position * len(data))] ^= 1
    elif change == "cut":
        del data[int(position * len(data)) :]
    else:
        data += b"x"
    damaged.write_bytes(data)
    assert load(cache, 1, folder) in (None, b"the weights")
    assert store(cache, 1, folder, b"the weights")
    assert load(cache, 1, folder) == b"the weights"


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_power_cut_leaves_the_old_or_the_new(tmp_path: Path, forgetful: bool) -> None:
    step = 0
    while True:
        step += 1
        folder = tmp_path / f"{forgetful}{step}"
        folder.mkdir()
        store(Cache(folder / "cache"), 1, folder, b"before")
        disk = FaultyStorage(cut_at=step, forgetful=forgetful)
        try:
            store(Cache(folder / "cache", storage=disk), 2, folder, b"after")
            done = True
        except PowerCut:
            done = False
        after = Cache(folder / "cache")
        assert load(after, 1, folder) == b"before"
        assert load(after, 2, folder) in ({b"after"} if done else {None, b"after"})
        assert store(after, 2, folder, b"after")
        assert load(after, 2, folder) == b"after"
        if done:
            break
    assert step > 6


def test_a_full_disk_costs_only_the_saving(tmp_path: Path) -> None:
    for step in range(1, 8):  # the eighth comes after the entry is complete
        disk = FaultyStorage(full_at=step, stays_full=True)
        assert not store(Cache(tmp_path / str(step), storage=disk), 1, tmp_path, b"x")
        assert load(Cache(tmp_path / str(step)), 1, tmp_path) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    occupied = file_of(tmp_path, b"", "occupied")
    assert not store(Cache(occupied / "below"), 1, tmp_path, b"x")
    with pytest.raises(UsageError, match="not a folder") as caught:
        Cache(occupied)
    assert caught.value.code == "usage.cache-unusable"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=25))
def test_the_size_is_bounded_and_the_last_used_survive(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[bool, int]]
) -> None:
    """Against a model: a list in order of use, each file of ten bytes, room for three."""
    folder = tmp_path_factory.mktemp("lru")
    cache = Cache(folder / "cache", max_bytes=35)
    order: list[int] = []
    for tick, (writes, number) in enumerate(moves):
        content = f"content {number:02d}".encode()
        if writes:
            assert store(cache, number, folder, content)
            order = [*(n for n in order if n != number), number][-3:]
        else:
            found = load(cache, number, folder)
            assert found == (content if number in order else None)
            if number in order:
                order = [*(n for n in order if n != number), number]
        path = cache.folder / "keys" / f"{key(number)}.json"
        if path.exists():
            os.utime(path, (1000 + tick, 1000 + tick))
        assert cache.size_bytes() <= 35


def test_what_is_larger_than_the_cache_is_not_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=10)
    store(cache, 1, tmp_path, b"small")
    assert not store(cache, 2, tmp_path, b"far too large")
    assert load(cache, 1, tmp_path) == b"small"


def _hammer(folder: Path, seed: int) -> int:
    own = folder / f"own{seed}"
    own.mkdir()
    cache = Cache(folder / "cache", max_bytes=20_000)
    wrong = 0
    for round_ in range(60):
        number = (seed * 7 + round_ * 3) % 8
        content = str(number).encode() * 4000
        store(cache, number, own, content)
        wrong += load(cache, (number + round_) % 8, own) not in (
            None,
            str((number + round_) % 8).encode() * 4000,
        )
    return wrong


def test_several_processes_never_see_a_wrong_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        results = pool.starmap(_hammer, [(tmp_path, seed) for seed in range(3)])
    assert results == [0, 0, 0]
    cache = Cache(tmp_path / "cache", max_bytes=20_000)
    assert cache.size_bytes() <= 20_000
    assert not [path for path in cache.folder.rglob("*") if path.suffix in (".tmp", ".part")]


def test_the_folder_follows_the_xdg_rules(tmp_path: Path) -> None:
    assert default_folder({"XDG_CACHE_HOME": str(tmp_path)}).is_relative_to(tmp_path)
    for environment in ({}, {"XDG_CACHE_HOME": "relative/is/ignored"}):
        assert default_folder(environment).is_relative_to(Path.home() / ".cache")
