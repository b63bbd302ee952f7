"""Fits the cost rows of the shipped device profiles from ncnn's public benchmark.

Everything comes from one public source, a clone of https://github.com/Tencent/ncnn: the timings
from ``benchmark/README.md``, the networks from ``benchmark/models/*.param`` (those whose layers
carry shape hints). Run::

    git clone --depth 1 https://github.com/Tencent/ncnn
    python benchmarks/cost_rows.py ncnn/.git            # print the rows and their errors
    python benchmarks/cost_rows.py ncnn/.git --write    # and put them into device_profiles/data

The model fitted is the product's own (``device_profiles/latency.py``), with one addition: ncnn
runs 3x3 stride-1 convolutions by Winograd's algorithm. The fit gives those a gain of their own,
1 to 2.25, and the rows leave it out, because LiteRT and ONNX Runtime have no such kernels on CPUs.

int8 rows are the float rows scaled by one factor, the geometric mean of int8/float over the
networks published in both. Leave-one-out errors leave the network out of both steps. Where TFLite's
own timings of a board are public (XNNPACK's README), rows for LiteRT are scaled to those.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

DATA = Path(__file__).parent.parent / "device_profiles" / "data"
MARKER = "# Cost rows below: written by benchmarks/cost_rows.py, do not edit.\n"
SOURCE = "Tencent/ncnn benchmark/README.md @{commit} (minimum of each row)"


@dataclass(frozen=True)
class Board:
    """Where a profile's rows come from."""

    profile: str
    section: str
    """Text in the heading of the board's section."""
    threads: tuple[int, ...]
    half: bool
    """The cores do half-precision arithmetic, so ncnn's "fp32" runs are fp16 ones."""
    peak_gmac_s: float
    """Of one core at the arithmetic used: clock x vector lanes x pipes."""
    powersave: int = 0
    stand_in: str = ""
    """Set when the board is not the profile's."""
    extra_percent: int = 0
    """Further error of standing in."""


BOARDS = (
    Board("rpi-zero-2w", "Raspberry Pi Zero 2 W", (1, 4), False, 4.0),
    Board("rpi3b-plus", "Raspberry Pi 3 Model B+", (1, 4), False, 5.6),
    Board("rpi4", "Raspberry Pi 4 Model B", (1, 4), False, 7.2),
    Board("rpi5", "Raspberry Pi 5 Broadcom BCM2712, Cortex-A76", (1, 4), True, 38.4),
    Board("jetson-orin-nano", "NVIDIA Jetson Orin Nano", (1, 6), True, 24.0),
    Board("jetson-agx-orin", "Jetson AGX Orin", (1, 4, 8), True, 35.2),
    Board(
        "snapdragon-8-gen3",
        "Snapdragon 8 Gen 2",
        (1, 4),
        True,
        102.4,
        powersave=2,
        stand_in="Snapdragon 8 Gen 2 (SM8550), big cores",
        extra_percent=30,
    ),
)

XNNPACK = {
    "rpi4": {
        "fp32": {"mobilenet": 77.0, "mobilenet_v2": 46.0, "mobilenet_v3": 40.0},
        "int8": {"mobilenet": 24.0, "mobilenet_v2": 17.0},
    },
    "rpi3b-plus": {
        "fp32": {"mobilenet": 114.0, "mobilenet_v2": 79.0, "mobilenet_v3": 67.0},
        "int8": {"mobilenet": 46.0, "mobilenet_v2": 30.0},
    },
}
"""TFLite's CPU kernels, all 4 cores, ms, by ncnn's name of the network (v3 is v3-large):
google/XNNPACK README @75db3c093b (8 Feb 2022)."""

ULTRALYTICS = [(88.026, 168.082), (194.858, 324.17)]
"""ncnn and ONNX Runtime, ms, yolo11n and yolo11s at 640 on a Pi 5: ultralytics docs 8.3.39."""


@dataclass(frozen=True)
class Layer:
    """A layer of a benchmark network."""

    kind: str
    """``dense``, ``winograd``, ``depthwise`` or ``memory``."""
    macs: int
    elements: int
    """Weights, inputs and outputs."""


Transfer = dict[str, dict[str, int]]
"""Percent by precision and runtime."""

KINDS = ("dense", "winograd", "depthwise", "memory")


class Network:
    """A network's layers as arrays."""

    def __init__(self, layers: list[Layer]) -> None:
        self.kinds = np.array([KINDS.index(layer.kind) for layer in layers])
        self.macs = np.array([layer.macs for layer in layers], float)
        self.elements = np.array([layer.elements for layer in layers], float)


def main() -> None:
    """Fit, print and optionally write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, help="git directory of a clone of Tencent/ncnn")
    parser.add_argument("--write", action="store_true", help="update device_profiles/data")
    arguments = parser.parse_args()
    repository = Repository(arguments.repository)
    networks, timings = read_networks(repository), read_timings(repository)
    transfer = transfer_percent(timings)
    source = SOURCE.format(commit=repository.git("rev-parse", "HEAD").strip()[:9])
    for board in BOARDS:
        text = board_rows(board, networks, timings, transfer, source)
        if arguments.write:
            path = DATA / f"{board.profile}.toml"
            path.write_text(path.read_text().split(MARKER)[0] + MARKER + text)
        else:
            print(text)


class Repository:
    """Files of a git repository at HEAD, with or without a work tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *arguments: str) -> str:
        """Output of a git command."""
        command = ["git", "--git-dir", str(self.folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def read(self, path: str) -> str:
        """Text of a file."""
        return self.git("show", f"HEAD:{path}")


def read_networks(repository: Repository) -> dict[str, Network]:
    """Every benchmark network whose shapes are known."""
    listing = repository.git("ls-tree", "--name-only", "HEAD", "benchmark/models/").split()
    names = [Path(path).stem for path in listing if path.endswith(".param")]
    found = {}
    for name in names:
        layers = parse_network(repository.read(f"benchmark/models/{name}.param"))
        if layers:
            found[name] = Network(layers)
    return found


def parse_network(text: str) -> list[Layer]:
    """Layers of an ncnn ``.param`` file; empty when it carries no shape hints."""
    if "-23330=" not in text:
        return []
    shapes: dict[str, tuple[int, ...]] = {}
    layers = []
    for line in text.splitlines()[2:]:
        words = line.split()
        if len(words) < 4:
            continue
        kind, inputs, outputs = words[0], int(words[2]), int(words[3])
        blobs = words[4 : 4 + inputs + outputs]
        options = dict(word.split("=", 1) for word in words[4 + inputs + outputs :])
        hint = [int(number) for number in options.get("-23330", "").split(",")[1:] if number]
        for index, blob in enumerate(blobs[inputs:]):
            shapes[blob] = tuple(hint[4 * index + 1 : 4 * index + 4])
        layer = parse_layer(kind, options, [shapes.get(blob, ()) for blob in blobs], inputs)
        if layer:
            layers.append(layer)
    return layers


def parse_layer(
    kind: str, options: dict[str, str], shapes: list[tuple[int, ...]], inputs: int
) -> Layer | None:
    """One layer's cost; None for those that do no work at run time."""
    if kind in ("Input", "Split", "Noop", "Dropout", "Flatten", "Reshape", "MemoryData"):
        return None
    moved = sum(math.prod(shape) for shape in shapes if shape)
    if kind == "InnerProduct":
        weights = int(options["2"])
        return Layer("dense", weights, moved + weights)
    if kind not in ("Convolution", "ConvolutionDepthWise"):
        return Layer("memory", 0, moved)
    weights, output = int(options["6"]), shapes[inputs]
    macs = weights * output[0] * output[1]
    if kind == "ConvolutionDepthWise" and options.get("7") == options["0"]:
        return Layer("depthwise", macs, moved + weights)
    plain = options.get("1") == "3" and "11" not in options and options.get("3", "1") == "1"
    return Layer("winograd" if plain else "dense", macs, moved + weights)


def read_timings(repository: Repository) -> dict[tuple[str, int, int], dict[str, float]]:
    """Minimum milliseconds by (section, threads, powersave), CPU runs only."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    section, settings = "", {}
    for line in repository.read("benchmark/README.md").splitlines():
        if heading := re.match(r"#{2,4} (.+)", line):
            section, settings = heading[1], {}
        elif setting := re.search(r"(loop_count|num_threads|powersave|gpu_device) = (-?\d+)", line):
            settings[setting[1]] = int(setting[2])
        elif timing := re.match(r"\s*([\w.\-]+)\s+min =\s*([\d.]+)\s+max =", line):
            if settings.get("gpu_device") != -1:
                continue
            key = (section, settings["num_threads"], settings["powersave"])
            found.setdefault(key, {})[timing[1]] = float(timing[2])
    return found


def transfer_percent(timings: dict[tuple[str, int, int], dict[str, float]]) -> Transfer:
    """How far another runtime is from ncnn, mean over published pairs, by precision and runtime."""
    onnxruntime = round(100 * statistics.mean(other / ncnn - 1 for ncnn, other in ULTRALYTICS))
    found = {}
    for precision, suffix in (("fp32", ""), ("int8", "_int8")):
        ratios = [
            other_ms / measured[network + suffix]
            for board in BOARDS
            for measured in [choose(timings, board.section, board.threads[-1], board.powersave)]
            for network, other_ms in XNNPACK.get(board.profile, {}).get(precision, {}).items()
            if network + suffix in measured
        ]
        litert = round(100 * statistics.mean(max(ratio, 1 / ratio) - 1 for ratio in ratios))
        found[precision] = {"litert": litert, "onnxruntime": onnxruntime}
        print(f"transfer {precision}: {found[precision]} ({len(ratios)} pairs for litert)")
    return {**found, "fp16": found["fp32"]}


def choose(
    timings: dict[tuple[str, int, int], dict[str, float]], section: str, threads: int, save: int
) -> dict[str, float]:
    """Timings of one board and setting."""
    for (heading, count, powersave), table in timings.items():
        if section in heading and (count, powersave) == (threads, save):
            return table
    raise SystemExit(f"no timings for {section!r} with {threads} threads, powersave {save}")


def predict_ms(network: Network, parameters: np.ndarray, element_bytes: int) -> float:
    """Roofline; parameters are logs of dense and depthwise GMAC/s, GB/s, overhead us, gain."""
    dense, depthwise, bandwidth, overhead_us, gain = np.exp(parameters)
    rates = np.array([dense, dense * gain, depthwise, dense]) * 1e9
    compute_s = network.macs / rates[network.kinds]
    traffic_s = network.elements * element_bytes / (bandwidth * 1e9)
    seconds = np.maximum(compute_s, traffic_s).sum() + len(network.macs) * overhead_us / 1e6
    return float(seconds) * 1e3


def fit(
    names: list[str],
    networks: dict[str, Network],
    measured: dict[str, float],
    element_bytes: int,
    peak: float,
) -> np.ndarray:
    """Parameters with the least robust log error, from several starts."""

    def residuals(parameters: np.ndarray) -> list[float]:
        return [
            math.log(predict_ms(networks[name], parameters, element_bytes) / measured[name])
            for name in names
        ]

    low = np.log([0.05, 0.01, 0.1, 0.01, 1.0])
    high = np.log([peak, peak, 300.0, 1000.0, 2.25])
    best = None
    for share in (0.3, 0.6):
        start = np.log([peak * share, peak * share / 5, 4.0, 10.0, 1.6])
        found = least_squares(
            residuals, np.clip(start, low, high), bounds=(low, high), loss="soft_l1", f_scale=0.2
        )
        if best is None or found.cost < best.cost:
            best = found
    return best.x


def board_rows(
    board: Board,
    networks: dict[str, Network],
    timings: dict[tuple[str, int, int], dict[str, float]],
    transfer: Transfer,
    source: str,
) -> str:
    """TOML of a board's rows."""
    rows = []
    for threads in board.threads:
        measured = choose(timings, board.section, threads, board.powersave)
        names = [name for name in measured if name in networks and not name.endswith("_int8")]
        element_bytes = 2 if board.half else 4
        peak = board.peak_gmac_s * threads
        fitted = fit(names, networks, measured, element_bytes, peak)
        left_out = {
            name: fit([n for n in names if n != name], networks, measured, element_bytes, peak)
            for name in names
        }
        errors = [
            abs(predict_ms(networks[n], left_out[n], element_bytes) / measured[n] - 1)
            for n in names
        ]
        dense, depthwise, bandwidth, overhead, gain = np.exp(fitted)
        native = "fp16" if board.half else "fp32"
        note = f"{source}; 3x3 fitted with Winograd gain {gain:.2f}, not applied"
        percent = 100 * statistics.mean(errors)
        base = (board, threads, transfer)
        rates = (dense, depthwise, bandwidth, overhead)
        rows.append(row(*base, native, rates, len(names), percent, note))
        if board.half:
            derived = f"{source}; derived from fp16: half as many fp32 lanes per vector"
            halved = (dense / 2, depthwise / 2, bandwidth, overhead)
            rows.append(row(*base, "fp32", halved, len(names), percent, derived))
        ratio, int8_percent, count = int8_ratio(names, networks, measured, left_out, element_bytes)
        scaled = f"{source}; {native} row scaled by the measured int8/{native} ratio {ratio:.3f}"
        quick = (dense / ratio, depthwise / ratio, bandwidth / element_bytes / ratio)
        rows.append(row(*base, "int8", (*quick, overhead * ratio), count, int8_percent, scaled))
        if threads == 4:
            for precision, published in XNNPACK.get(board.profile, {}).items():
                rows.append(litert_row(board, networks, precision, published, fitted, percent))
    return "\n".join(rows)


def int8_ratio(
    names: list[str],
    networks: dict[str, Network],
    measured: dict[str, float],
    left_out: dict[str, np.ndarray],
    element_bytes: int,
) -> tuple[float, float, int]:
    """Geometric mean of int8/float, leave-one-out error of the int8 prediction, count."""
    pairs = {
        n: math.log(measured[f"{n}_int8"] / measured[n]) for n in names if f"{n}_int8" in measured
    }
    errors = []
    for name in pairs:
        others = statistics.mean(value for other, value in pairs.items() if other != name)
        predicted = predict_ms(networks[name], left_out[name], element_bytes) * math.exp(others)
        errors.append(abs(predicted / measured[f"{name}_int8"] - 1))
    return math.exp(statistics.mean(pairs.values())), 100 * statistics.mean(errors), len(pairs)


def litert_row(
    board: Board,
    networks: dict[str, Network],
    precision: str,
    published: dict[str, float],
    fitted: np.ndarray,
    percent: float,
) -> str:
    """The float row on 4 threads scaled to TFLite's published timings.

    The networks are few, so the error is the float row's plus that of the factor, each left out.
    """
    plain = np.array([*fitted[:4], 0.0])  # no Winograd kernels there
    logs = {n: math.log(ms / predict_ms(networks[n], plain, 4)) for n, ms in published.items()}
    errors = []
    for name in logs:
        others = statistics.mean(value for other, value in logs.items() if other != name)
        errors.append(abs(math.exp(others - logs[name]) - 1))
    factor = math.exp(statistics.mean(logs.values()))
    dense, depthwise, bandwidth, overhead, _ = np.exp(fitted)
    bytes_ratio = 4 if precision == "int8" else 1
    rates = (
        dense / factor,
        depthwise / factor,
        bandwidth / bytes_ratio / factor,
        overhead * factor,
    )
    error = percent + 100 * statistics.mean(errors)
    source = (
        f"google/XNNPACK README @75db3c093b (8 Feb 2022): the ncnn fp32 row scaled by {factor:.3f} "
        "to TFLite's timings of MobileNets, error of both added"
    )
    return row(board, 4, {}, precision, rates, len(logs), error, source, runtime="litert")


def row(
    board: Board,
    threads: int,
    transfer: Transfer,
    precision: str,
    rates: tuple[float, ...],
    models: int,
    percent: float,
    source: str,
    runtime: str = "ncnn",
) -> str:
    """One ``[[cost]]`` table."""
    foreign = {
        name: more + board.extra_percent for name, more in transfer.get(precision, {}).items()
    }
    inline = ", ".join(f"{name} = {more}" for name, more in foreign.items())
    lines = [
        "[[cost]]",
        f'runtime = "{runtime}"',
        f'precision = "{precision}"',
        'unit = "cpu"',
        f"threads = {threads}",
        f"dense_gmac_s = {rates[0]:.4g}",
        f"depthwise_gmac_s = {rates[1]:.4g}",
        f"bandwidth_gb_s = {rates[2]:.4g}",
        f"overhead_us = {rates[3]:.3g}",
        f"models = {models}",
        f"error_percent = {percent:.1f}",
        *([f"transfer_percent = {{ {inline} }}"] if inline else []),
        *([f'device = "{board.stand_in}"'] if board.stand_in else []),
        f'source = "{source}"',
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
