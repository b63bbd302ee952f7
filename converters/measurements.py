"""Measured networks for ``edge profile calibrate``: from a list, from telemetry, or taken here.

A line of a list names the model file that was measured; its layers are read from the file. In
telemetry the operating point names the artifact of a conversion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from converters.bench import bench, read_conversion
from converters.children import Job, run_jobs
from converters.costs import layer_costs, layer_sizes
from converters.linting import read_graph, scheme_of
from converters.schemes import parse_scheme
from device_profiles.calibrate import Measurement, Precision
from device_profiles.latency import LayerCost, precision_of
from edge_sdk.contracts.conversion import Conversion
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.telemetry import TelemetrySample
from edge_sdk.errors import ProfileError

MAX_BYTES = 64 * 2**20
_FREE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "QuantizeLinear", "DequantizeLinear"} | {
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", "Relu", "Clip")
}
"""Operators that runtimes drop or fuse into the one before."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a measurements file."""

    file: str
    """The model file, relative to the measurements file."""
    runtime: str
    threads: Annotated[int, Meta(ge=1, le=1024)]
    latency_ms: Annotated[float, Meta(gt=0)]


def file_layers(path: Path) -> tuple[tuple[LayerCost, ...], Precision]:
    """Fused layers of a model file, and the arithmetic it runs in.

    Raises:
        ConversionError: the file cannot be read.
    """
    graph = read_graph(path)
    scheme = scheme_of(graph)
    if graph.format == "onnx" and scheme == "fp32":
        return tuple(layer_costs(layer_sizes(path), parse_scheme("fp32"))), "fp32"
    costs = tuple(node.cost for node in graph.nodes if node.op not in _FREE)
    return costs, precision_of(scheme)


def read_measurements(path: Path) -> list[Measurement]:
    """A JSON-lines file of :class:`Line`.

    Raises:
        ProfileError: ``profile.bad-measurements`` naming the line.
        ConversionError: a model file cannot be read.
    """
    known: dict[Path, tuple[tuple[LayerCost, ...], Precision]] = {}
    found = []
    for number, text in _lines(path):
        try:
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad(path, number, str(error)) from error
        if not math.isfinite(line.latency_ms):
            raise _bad(path, number, "latency_ms is not finite")
        file = path.parent / line.file
        if file not in known:
            known[file] = file_layers(file)
        layers, precision = known[file]
        found.append(
            Measurement(line.file, line.runtime, precision, line.threads, line.latency_ms, layers)
        )
    return found


def read_telemetry(path: Path, folder: Path, profile: str) -> list[Measurement]:
    """A JSON-lines file of telemetry samples, of devices that ran a conversion's ladder.

    Samples that hold no inference, or that were throttled, are left aside.

    Args:
        path: one :class:`TelemetrySample` per line.
        folder: the conversion that the devices ran.
        profile: whose ladder names the operating points.

    Raises:
        ProfileError: ``profile.bad-measurements``.
        ConversionError: ``conversion.not-a-conversion``, or a model file cannot be read.
    """
    conversion = read_conversion(folder)
    points = {point.id: point for point in conversion.ladders.get(profile, ())}
    if not points:
        known = ", ".join(sorted(conversion.ladders))
        raise _bad(folder, 0, f"it was not converted for {profile}, only for {known}")
    layers: dict[str, tuple[LayerCost, ...]] = {}
    found = []
    for number, text in _lines(path):
        try:
            sample = msgspec.json.decode(text, type=TelemetrySample)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad(path, number, str(error)) from error
        point = points.get(sample.ladder.point) if sample.ladder else None
        usable = sample.frames and sample.latency_p50_ms > 0 and not sample.throttled
        if point is None or not usable or not math.isfinite(sample.latency_p50_ms):
            continue
        if point.id not in layers:
            layers[point.id] = _point_layers(folder, conversion, point)
        found.append(
            Measurement(
                model=f"{point.channel_width:g}-{point.height_px}x{point.width_px}",
                runtime=point.runtime,
                precision=precision_of(point.scheme),
                threads=point.threads,
                latency_ms=sample.latency_p50_ms,
                layers=layers[point.id],
            )
        )
    return found


def _point_layers(
    folder: Path, conversion: Conversion, point: OperatingPoint
) -> tuple[LayerCost, ...]:
    """As the prediction counted them: off the float ONNX file of the same size, where kept."""
    for digest, artifact in conversion.artifacts.items():
        same = (artifact.height_px, artifact.width_px) == (point.height_px, point.width_px)
        if same and artifact.format == "onnx" and artifact.scheme == "fp32":
            sizes = layer_sizes(folder / conversion.files[digest])
            return tuple(layer_costs(sizes, parse_scheme(point.scheme)))
    return file_layers(folder / conversion.files[point.artifact])[0]


def measure_here(
    threads: int,
    folder: Path,
    progress: Callable[[str], None] = lambda text: None,
    names: Sequence[str] | None = None,
) -> list[Measurement]:
    """Build a set of networks, and time them on this machine on both runtimes, in fp32.

    Args:
        threads: CPU threads.
        folder: for the files; the caller owns it.
        progress: told each step.
        names: of the networks; all when absent.

    Raises:
        ConversionError, RuntimeUnavailableError: an export or a runtime fails.
    """
    request = {"folder": str(folder), "names": list(names) if names is not None else None}
    build = Job("the yardsticks", "converters.yardsticks", request, folder)
    (built,) = run_jobs([build], parallel=1, on_step=lambda job, text: progress(text))
    files = [Path(path) for path in built]
    rows = bench(files, threads=threads, seconds=0.5, progress=progress)
    found = []
    for file, row in zip(files, rows, strict=True):
        # Both formats are counted off the ONNX file, as a prediction does.
        layers, precision = file_layers(file.with_suffix(".onnx"))
        found.append(Measurement(file.stem, row.runtime, precision, threads, row.median_ms, layers))
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise _bad(path, 0, error.strerror or str(error)) from error
    if len(data) > MAX_BYTES:
        raise _bad(path, 0, f"it is larger than {MAX_BYTES // 2**20} MiB")
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            yield number, line


def _bad(path: Path, line: int, why: str) -> ProfileError:
    where = f"{path}, line {line}" if line else str(path)
    return ProfileError(
        "bad-measurements",
        f"{where}: {why}.",
        "One JSON object per line; docs/profiles.md describes the format.",
    )
