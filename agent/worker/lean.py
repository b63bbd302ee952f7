"""Workers without docstrings, where an installation has compiled what they import that way.

The docstrings of numpy and of Python's own modules are 2 MiB of every worker. Python leaves them
out with ``-OO`` and keeps such modules in files of their own (PEP 488). Installers do not write
these, and an agent may not where systemd protects its installation; without them every start would
compile all modules anew. So they are written once, by :func:`compile_workers`, and a worker whose
installation has none, or those of another version, runs with docstrings (docs/adr/0032).
"""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

from edge_sdk.errors import StorageError

LEAN = "-OO"
COMPILE_TIMEOUT_S = 900.0
"""A board with a slow card compiles for a minute."""
IMPORTED = (
    "runpy",
    "numpy.fft",
    "agent.worker.__main__",
    "agent.worker.golden",
    "agent.worker.sound_setup",
    "agent.worker.serve_sound",
    "agent.worker.serve",
    "agent.pipelines.pixels",
    "ai_edge_litert.interpreter",
    "tflite_runtime.interpreter",
    "onnxruntime",
    "cv2",
    "sounddevice",
    "soundfile",
)
"""What workers import, as far as it is installed."""
_TOLD_BY = (
    "agent",
    "logging",
    "msgspec",
    "numpy",
    "ai_edge_litert",
    "tflite_runtime",
    "onnxruntime",
    "cv2",
)
"""Of every distribution one module: an update changes the time of all."""
_HEAD = struct.Struct("<4sIII")
_IMPORTS = """
import contextlib, importlib, sys
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError, OSError, RuntimeError, AttributeError):
        importlib.import_module(name)
"""


def python_flags() -> list[str]:
    """How Python is to be started for a worker."""
    return [LEAN] if is_compiled() else []


def is_compiled() -> bool:
    """Whether :func:`compile_workers` was here since the last update of what workers import."""
    specs = [importlib.util.find_spec(name) for name in _TOLD_BY]
    return all(is_fresh(Path(spec.origin)) for spec in specs if spec is not None and spec.origin)


def is_fresh(source: Path) -> bool:
    """Whether a module lies compiled without docstrings beside its present source."""
    compiled = Path(importlib.util.cache_from_source(source, optimization=2))
    try:
        with compiled.open("rb") as handle:
            head = handle.read(_HEAD.size)
        now = source.stat()
    except OSError:
        return False
    if len(head) < _HEAD.size:
        return False
    magic, by_content, modified_s, size = _HEAD.unpack(head)
    if magic != importlib.util.MAGIC_NUMBER:
        return False
    # Both numbers as Python writes them: the lower 32 bits (importlib, PEP 552).
    present = (int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF)
    return bool(by_content) or (modified_s, size) == present


def compile_workers() -> None:
    """Have Python write :data:`IMPORTED` without docstrings, beside what is installed.

    Raises:
        StorageError: ``storage.not-compiled``.
    """
    hindering = ("PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE")
    environment = {name: value for name, value in os.environ.items() if name not in hindering}
    why = "this user may not write there"
    try:
        done = subprocess.run(
            [sys.executable, LEAN, "-P", "-c", _IMPORTS, *IMPORTED],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPILE_TIMEOUT_S,
        )
        if done.returncode:
            why = f"Python ended with exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if not is_compiled():
        raise StorageError(
            "not-compiled",
            f"What workers import could not be compiled into {Path(sys.prefix)}: {why}.",
            "Run it as the user who installed the agent, with sudo if that was root.",
        )
