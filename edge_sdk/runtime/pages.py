"""Giving a mapped file's pages back once nothing reads them.

XNNPACK copies a model's weights into an order of its own while loading, and never reads the file
again. Its pages would count as this process's memory for as long as the kernel has room for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_DONT_NEED: Final = 4
"""``MADV_DONTNEED`` of Linux: what is read after all comes from the file again."""
_MAPS: Final = Path("/proc/self/maps")


def give_back_pages(path: Path) -> None:
    """Let go of the resident pages of a file that this process has mapped to read; never fails.

    Pages of a mapping that can be written to are left alone: they may differ from the file.
    """
    try:
        found = list(mappings(_MAPS.read_text(), str(path.resolve())))
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):  # no Linux
        return
    for start, end in found:
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def mappings(text: str, name: str) -> Iterator[tuple[int, int]]:
    """First address and end of each read-only mapping of a file, from the kernel's list."""
    for line in text.splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5] == name and parts[1].startswith("r--"):
            start, _, end = parts[0].partition("-")
            yield int(start, 16), int(end, 16)
