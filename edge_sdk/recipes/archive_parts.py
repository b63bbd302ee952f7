"""Members of a zip archive, as golden vectors are stored."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

from edge_sdk.recipes.parts import Part

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Lengths of the name and of the extra field, at the end of the fixed part."""


def archive_parts(data: bytes) -> Iterator[Part]:
    """Each member as it is stored: equal members of two archives are equal bytes.

    Raises:
        ValueError, struct.error: the bytes are no archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    for member in members:
        name_bytes, extra_bytes = _LOCAL_HEADER.unpack_from(data, member.header_offset)
        start = member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        yield Part(member.filename, start, (member.compress_size,), 1)
