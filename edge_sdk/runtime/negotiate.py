"""Choosing a runtime for a model file, and saying why each other candidate was rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_sdk.errors import RuntimeUnavailableError
from edge_sdk.runtime.engine import Engine
from edge_sdk.runtime.litert import open_litert
from edge_sdk.runtime.packages import InstalledPackages, Packages
from edge_sdk.suggest import did_you_mean

ModelFormat = Literal["tflite", "onnx"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package that may run a model file."""

    name: str
    """As in :attr:`Engine.runtime`."""
    format: ModelFormat
    distributions: tuple[str, ...]
    """Names under which it is published; one is enough."""
    extra: str
    """What to install when none of them is there."""
    open: Callable[[Path, int, Packages], Engine]


def _litert(path: Path, threads: int, packages: Packages) -> Engine:
    module = "ai_edge_litert.interpreter"
    return open_litert(path, threads, packages, distribution="ai-edge-litert", module=module)


def _tflite_runtime(path: Path, threads: int, packages: Packages) -> Engine:
    module = "tflite_runtime.interpreter"
    return open_litert(path, threads, packages, distribution="tflite-runtime", module=module)


def _onnxruntime(path: Path, threads: int, packages: Packages) -> Engine:
    from edge_sdk.runtime.ort import open_ort

    return open_ort(path, threads, packages)


CANDIDATES = (
    Candidate(
        name="litert",
        format="tflite",
        distributions=("ai-edge-litert",),
        extra="'edge-sdk[litert]'",
        open=_litert,
    ),
    Candidate(
        name="tflite-runtime",
        format="tflite",
        distributions=("tflite-runtime",),
        extra="tflite-runtime 'numpy<2'",
        open=_tflite_runtime,
    ),
    Candidate(
        name="onnxruntime",
        format="onnx",
        distributions=("onnxruntime", "onnxruntime-gpu"),
        extra="'edge-sdk[onnx]'",
        open=_onnxruntime,
    ),
)
"""In order of preference."""

_FAMILY = {"litert": ("litert", "tflite-runtime")}
"""A ladder says ``litert`` for any TFLite interpreter."""


def open_engine(
    path: Path,
    *,
    format: ModelFormat,
    threads: int = 1,
    runtimes: Sequence[str] | None = None,
    packages: Packages | None = None,
) -> Engine:
    """Load a model on the first runtime that completes an inference with it.

    Args:
        path: the model file.
        format: what the file is.
        threads: CPU threads, 1 to 64.
        runtimes: names in order of preference; every suitable one when None.
        packages: the installed packages; the running interpreter's when None.

    Raises:
        RuntimeUnavailableError: ``runtime.file-missing``, ``runtime.bad-threads``,
            ``runtime.unknown-runtime``; ``runtime.none-available`` when no candidate is
            installed and sound, ``runtime.model-rejected`` when those that are refuse the file.
            The cause lists every candidate with its reason.
    """
    _check(path, threads)
    installed = packages or InstalledPackages()
    rejections: list[RuntimeUnavailableError] = []
    for candidate in _ordered(runtimes):
        try:
            _check_candidate(candidate, format, installed)
            return candidate.open(path, threads, installed)
        except RuntimeUnavailableError as error:
            rejections.append(error)
    raise _summary(path, format, rejections)


def available(format: ModelFormat, packages: Packages | None = None) -> dict[str, str]:
    """Every candidate for a format, with its version or the reason against it."""
    installed = packages or InstalledPackages()
    found = {}
    for candidate in CANDIDATES:
        if candidate.format == format:
            try:
                found[candidate.name] = _check_candidate(candidate, format, installed)
            except RuntimeUnavailableError as error:
                found[candidate.name] = error.cause
    return found


def _check(path: Path, threads: int) -> None:
    if not path.is_file():
        raise RuntimeUnavailableError(
            "file-missing", f"There is no model file {path}.", "Check the path."
        )
    if not 1 <= threads <= 64:
        raise RuntimeUnavailableError(
            "bad-threads", f"{threads} threads were asked for.", "Use 1 to 64."
        )


def _ordered(runtimes: Sequence[str] | None) -> list[Candidate]:
    if runtimes is None:
        return list(CANDIDATES)
    by_name = {candidate.name: candidate for candidate in CANDIDATES}
    ordered: list[Candidate] = []
    for runtime in runtimes:
        for name in _FAMILY.get(runtime, (runtime,)):
            if name not in by_name:
                raise RuntimeUnavailableError(
                    "unknown-runtime",
                    f"There is no runtime {name!r}.",
                    did_you_mean(name, by_name),
                )
            if by_name[name] not in ordered:
                ordered.append(by_name[name])
    return ordered


def _check_candidate(candidate: Candidate, format: ModelFormat, packages: Packages) -> str:
    """The candidate's version, once nothing speaks against trying it."""
    if candidate.format != format:
        raise RuntimeUnavailableError(
            "wrong-format",
            f"{candidate.name} does not read {format} files.",
            f"Use a runtime for {format}.",
        )
    versions = [packages.version(name) for name in candidate.distributions]
    version = next((found for found in versions if found), None)
    if version is None:
        raise RuntimeUnavailableError(
            "not-installed",
            f"{candidate.name} is not installed (pip install {candidate.extra}).",
            f"pip install {candidate.extra}",
        )
    if candidate.name == "tflite-runtime":
        _check_numpy(version, packages)
    return version


def _check_numpy(version: str, packages: Packages) -> None:
    """tflite-runtime's last wheels were built against numpy 1 and raise under numpy 2."""
    numpy = packages.version("numpy") or "0"
    if int(numpy.split(".")[0]) >= 2:
        raise RuntimeUnavailableError(
            "incompatible",
            f"tflite-runtime {version} needs numpy<2 and numpy {numpy} is installed "
            "(pip install 'numpy<2', or 'edge-sdk[litert]' instead).",
            "pip install 'edge-sdk[litert]', or 'numpy<2' where ai-edge-litert has no wheel.",
        )


def _summary(
    path: Path, format: ModelFormat, rejections: Sequence[RuntimeUnavailableError]
) -> RuntimeUnavailableError:
    relevant = [e for e in rejections if e.slug != "wrong-format"] or list(rejections)
    refused = [error for error in relevant if error.slug == "model-rejected"]
    listing = " ".join(error.cause for error in relevant) or "No candidate was named."
    if refused:
        return RuntimeUnavailableError("model-rejected", listing, refused[0].hint)
    hint = relevant[0].hint if relevant else f"Name a runtime for {format} files."
    return RuntimeUnavailableError(
        "none-available", f"No runtime here can run {path}. {listing}", hint
    )
