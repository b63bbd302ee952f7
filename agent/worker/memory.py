"""Memory of this process, without a library."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_STATM = Path("/proc/self/statm")


def rss_mib() -> float:
    """Resident set in MiB; 0 where there is no /proc."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def return_freed() -> None:
    """Give what has been freed back to the system; allocators keep it for later otherwise.

    A runtime's arena of some MiB stays resident after its session is gone (glibc); elsewhere this
    does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
