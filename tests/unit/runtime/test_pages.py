"""Pages of a mapped file are given back, and only those."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.runtime.pages import give_back_pages, mappings

LINE = "7f00-7fff r--s 00000000 fe:00 258 /models/a file.tflite"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_read_is_no_longer_resident(tmp_path: Path) -> None:
    path, other = tmp_path / "a file.tflite", tmp_path / "other"
    size = 64 * mmap.PAGESIZE
    for item in (path, other):
        item.write_bytes(bytes(range(256)) * (size // 256))
    with path.open("rb") as first, other.open("rb") as second:
        mapped = mmap.mmap(first.fileno(), 0, access=mmap.ACCESS_READ)
        beside = mmap.mmap(second.fileno(), 0, access=mmap.ACCESS_READ)
        before = bytes(mapped), bytes(beside)
        assert resident_kib(path) == resident_kib(other) == size // 1024
        give_back_pages(path)
        assert resident_kib(path) == 0 and resident_kib(other) == size // 1024
        assert (bytes(mapped), bytes(beside)) == before, "what is read after all is the file's"
        mapped.close()
        beside.close()
    give_back_pages(tmp_path / "absent")


def resident_kib(path: Path) -> int:
    part = Path("/proc/self/smaps").read_text().split(str(path))[1]
    found = re.search(r"Rss:\s+(\d+) kB", part)
    assert found is not None
    return int(found[1])


def test_only_read_only_mappings_of_the_file_count() -> None:
    name = "/models/a file.tflite"
    lines = [
        LINE,
        LINE.replace("r--s", "rw-p"),
        LINE.replace("r--s", "r-xp"),
        LINE + ".part",
        "7f00-7fff r--p 00000000 00:00 0",
        LINE.replace("7f00-7fff", "1000-2000"),
    ]
    assert list(mappings("\n".join(lines), name)) == [(0x7F00, 0x7FFF), (0x1000, 0x2000)]


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_failure(text: str) -> None:
    assert all(start >= 0 for start, _ in mappings(text, "/models/x"))
