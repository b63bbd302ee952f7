"""What general tools make of the same pair of files, where they are installed. Host only.

They know nothing of tensors: bsdiff (C. Percival, 2003), xdelta3 (RFC 3284, LZMA as its second
compressor) and ``zstd --patch-from``, each at its strongest.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

MAX_BSDIFF_BYTES = 32 << 20
"""Its suffix array takes a minute and a gigabyte beyond this."""
PATIENCE_S = 600.0

_COMMANDS = {
    "xdelta3": ["xdelta3", "-e", "-9", "-S", "lzma", "-f", "-q", "-s", "{old}", "{new}", "{out}"],
    "zstd": [
        *("zstd", "-q", "--ultra", "-22", "--long=27", "--single-thread", "-f"),
        *("--patch-from={old}", "{new}", "-o", "{out}"),
    ],
}


def rival_sizes(old: bytes, new: bytes) -> dict[str, int]:
    """Bytes of the differences by tool; tools that are missing, or fail, are left out."""
    found = {}
    if importlib.util.find_spec("bsdiff4") and max(len(old), len(new)) <= MAX_BSDIFF_BYTES:
        import bsdiff4

        found["bsdiff4"] = len(bsdiff4.diff(old, new))
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in ("old", "new", "out")}
        paths["old"].write_bytes(old)
        paths["new"].write_bytes(new)
        for tool, command in _COMMANDS.items():
            if shutil.which(tool) and _ran([part.format(**paths) for part in command]):
                found[tool] = paths["out"].stat().st_size
    return found


def _ran(command: list[str]) -> bool:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
