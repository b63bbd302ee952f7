"""Digests of what goes into a pass: the user's module and code, samples, this host, the tools."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

    from converters.loading import LoadedTask

TOOLS = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "litert-torch",
    "ai-edge-quantizer",
    "ai-edge-litert",
    "torchao",
    "numpy",
)
_PLAIN = (bool, int, float, str, type(None))


@functools.cache
def tool_versions() -> dict[str, str]:
    """Versions of Python, of this product and of every library that shapes an artifact."""
    from edge_sdk import __version__

    found = {"python": platform.python_version(), "edge-sdk": __version__}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def own_code() -> str:
    """Digest of the converters' own source: a corrected pass must not meet its old answers."""
    seen = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        seen.update(path.name.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()


@functools.cache
def host_id() -> str:
    """Short name of this machine's kind: processor model, core count, operating system.

    Latencies compare only under the same one. It identifies the kind, not the owner: two equal
    machines of a cluster share it.
    """
    text = f"{platform.system()} {platform.machine()} {os.cpu_count()} {_processor()}"
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def array_digest(array: npt.NDArray[Any]) -> str:
    """Of an array's element type, shape and values."""
    seen = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    seen.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return seen.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def module_digest(task: LoadedTask, module: nn.Module) -> str:
    """Of everything that decides what an export of the module looks like.

    That is: its parameters and buffers, the plain attributes of every submodule, and the source
    of the user's file, of every module loaded from outside the installed packages, and of the
    files that define the classes of the submodules.
    """
    seen = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        seen.update(f"{name} ".encode() + array_digest(tensor.detach().cpu().numpy()).encode())
    for name, layer in module.named_modules():
        seen.update(json.dumps([name, type(layer).__qualname__, _plain(layer)]).encode())
    for path in sorted(_sources(task, module)):
        seen.update(path.name.encode() + b"\0" + path.read_bytes())
    return seen.hexdigest()


def _plain(layer: nn.Module) -> list[tuple[str, str]]:
    """Attributes that are numbers, texts, tensors or small collections of them."""
    return [
        (name, _shown(value))
        for name, value in sorted(vars(layer).items())
        if not name.startswith("_") and _shown(value)
    ]


def _shown(value: Any, depth: int = 0) -> str:
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, list | tuple) and depth < 4:
        return f"[{','.join(_shown(item, depth + 1) for item in value)}]"
    if isinstance(value, dict) and depth < 4:
        return f"{{{','.join(f'{k!r}:{_shown(v, depth + 1)}' for k, v in value.items())}}}"
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return array_digest(value.detach().cpu().numpy())
    return ""


def _sources(task: LoadedTask, module: nn.Module) -> Iterator[Path]:
    """Files of the user's code that are loaded now."""
    installed = [
        Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    ours = Path(__file__).parent.parent
    kinds = {type(layer).__module__ for layer in module.modules()} - {"builtins"}
    found = {task.path}
    for name, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(file)
        theirs = not any(path.is_relative_to(folder) for folder in (*installed, ours))
        beside = path.is_relative_to(task.path.parent)
        if theirs or beside or (name in kinds and not name.startswith("torch.")):
            found.add(path)
    yield from (path for path in found if path.is_file())
