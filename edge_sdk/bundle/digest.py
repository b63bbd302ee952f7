"""SHA-256 that does not cost more memory than the bytes are worth.

OpenSSL, which ``hashlib`` loads, is several times as fast as Python's own implementation and keeps
3.5 MiB resident for good, which is a tenth of a worker that listens. Both give the same digest.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Protocol

LEAN_BYTES = 6 * 2**20
"""Up to here Python's own takes 30 ms at most on a PC, once."""
PIECE_BYTES = 128 * 1024
"""Python's own holds the interpreter lock for one: threads that decide frames wait 1 ms at most."""
_OWN = "_sha2" if sys.version_info >= (3, 12) else "_sha256"


class Hash(Protocol):
    """A digest in the making."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """In lower-case hexadecimal."""


def sha256(size_bytes: int) -> Hash:
    """A SHA-256 that suits so many bytes; OpenSSL's once it is in memory anyway."""
    if size_bytes <= LEAN_BYTES and "_hashlib" not in sys.modules:
        try:
            lean: Hash = importlib.import_module(_OWN).sha256()
        except ImportError:  # a Python that was built with OpenSSL's alone
            pass
        else:
            return lean
    import hashlib

    return hashlib.sha256()


def bytes_digest(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    found, view = sha256(len(data)), memoryview(data)
    for start in range(0, len(view), PIECE_BYTES):
        found.update(view[start : start + PIECE_BYTES])
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as handle:
        found = sha256(os.fstat(handle.fileno()).st_size)
        while piece := handle.read(PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()
