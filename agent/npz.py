"""Reading ``.npz`` archives that may be damaged, huge or hostile."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zipfile, zlib and numpy raise on bytes that are no archive of theirs."""


class ArchiveError(ValueError):
    """The archive cannot be read; the message says why, in half a sentence."""


def read_arrays(
    file: IO[bytes], names: Sequence[str], max_bytes: int, *, optional: Sequence[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Named arrays of an archive; nothing in it is executed.

    Args:
        file: seekable.
        names: arrays that must be there.
        max_bytes: limit of all members together, unpacked.
        optional: arrays that are returned if they are there.

    Raises:
        ArchiveError: it is damaged, too large, or lacks an array.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max_bytes:
            raise ArchiveError(f"it unpacks to {size >> 20} MiB, over {max_bytes >> 20} MiB")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            missing = [name for name in names if name not in arrays.files]
            if missing:
                raise ArchiveError(f"it has no array {' and '.join(map(repr, missing))}")
            wanted = [*names, *(name for name in optional if name in arrays.files)]
            found = {name: arrays[name] for name in wanted}
    except ArchiveError:
        raise
    except _DAMAGE as error:
        raise ArchiveError(f"it cannot be read ({type(error).__name__}: {error})") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # a member that is no .npy comes back as bytes
            raise ArchiveError(f"its member {name!r} is no array")
    return found
