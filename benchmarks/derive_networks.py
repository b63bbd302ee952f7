"""Derives the published timings and the networks' layers that the latency model is fitted to.

Everything comes from one public source, a clone of https://github.com/Tencent/ncnn: the timings
from ``benchmark/README.md``, the networks from ``benchmark/models/*.param`` (those whose layers
carry shape hints). Run::

    git clone --depth 1 https://github.com/Tencent/ncnn
    python benchmarks/derive_networks.py ncnn/.git

It writes ``device_profiles/data/networks.json`` and ``timings.json``; ``latency_model.py`` fits
them without the clone.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent.parent / "device_profiles" / "data"
FREE = ("Input", "Split", "Noop", "Dropout", "Flatten", "Reshape", "MemoryData")
SCALAR = ("DetectionOutput", "Yolov3DetectionOutput", "PriorBox", "Softmax", "Permute")


@dataclass(frozen=True)
class Board:
    """One board of ncnn's table."""

    id: str
    section: str
    """Text in the heading of the board's section."""
    threads: tuple[int, ...]
    half: bool
    """The cores do half-precision arithmetic, so ncnn's "fp32" runs are fp16 ones."""
    powersave: int = 0


BOARDS = (
    Board("rpi-zero-2w", "Raspberry Pi Zero 2 W", (1, 4), False),
    Board("rpi3b-plus", "Raspberry Pi 3 Model B+", (1, 4), False),
    Board("rpi4", "Raspberry Pi 4 Model B", (1, 4), False),
    Board("rpi5", "Raspberry Pi 5 Broadcom BCM2712, Cortex-A76", (1, 4), True),
    Board("jetson-nano", "NVIDIA Jetson Nano", (1, 4), False),
    Board("jetson-orin-nano", "NVIDIA Jetson Orin Nano", (1, 6), True),
    Board("jetson-agx-orin", "Jetson AGX Orin", (1, 4, 8), True),
    Board("snapdragon-8-gen2", "Snapdragon 8 Gen 2", (1, 4), True, 2),
    Board("dimensity-9300", "Dimensity 9300", (1, 4), True, 2),
    Board("dimensity-9300", "Dimensity 9300", (8,), True, 0),
    # Relatives of the boards above, which the shrinkage learns from.
    Board("snapdragon-x-elite", "Snapdragon X Elite", (12,), True),
    Board("rk3588", "Rockchip RK3588 (Cortex-A76", (1, 4), True, 2),
    Board("orangepi5-plus", "OrangePi5 Plus", (4,), True, 2),
    Board("orion-o6", "Radxa Orion O6", (1,), True, 2),
    Board("rk3399", "Rockchip RK3399 (Cortex-A72", (1, 2), False, 2),
    Board("rk3568", "Station P2, Rockchip RK3568", (1, 4), True),
    Board("rk3566", "OrangePicm4", (1, 4), True),
    Board("uno-q", "Arduino UNO Q", (1, 4), False),
    Board("snapdragon-888", "Snapdragon 888", (8,), True, 2),
    Board("snapdragon-855", "Snapdragon 855+", (1, 4), True, 2),
    Board("vim3", "Khadas VIM3", (1, 4), False, 2),
    Board("jetson-tx2-nx", "Jetson TX2 NX", (1, 6), False),
)


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


Layer = tuple[str, int, int, int]
"""Kind, MACs, elements of weights, elements of inputs and outputs."""


def main() -> None:
    """Read the clone and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, help="git directory of a clone of Tencent/ncnn")
    repository = Repository(parser.parse_args().repository)
    commit = repository.git("rev-parse", "HEAD").strip()[:9]
    networks = read_networks(repository)
    write(
        "networks.json",
        {
            "source": f"Tencent/ncnn benchmark/models @{commit}, shapes as declared there",
            "networks": networks,
        },
    )
    rows = read_rows(read_timings(repository), set(networks))
    write(
        "timings.json",
        {"source": f"Tencent/ncnn benchmark/README.md @{commit} (minimum of each row)",
         "rows": rows},
    )  # fmt: skip
    print(f"{len(networks)} networks, {len(rows)} rows")


def write(name: str, document: object) -> None:
    """One JSON file, a line per innermost list."""
    text = json.dumps(document, indent=1)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    (DATA / name).write_text(text + "\n")


def read_networks(repository: Repository) -> dict[str, list[list[object]]]:
    """Layers of every float benchmark network whose shapes are known, equal ones counted."""
    listing = repository.git("ls-tree", "--name-only", "HEAD", "benchmark/models/").split()
    found = {}
    for path in sorted(path for path in listing if path.endswith(".param")):
        name = Path(path).stem
        layers = [] if name.endswith("_int8") else parse_network(repository.read(path))
        if layers:
            found[name] = [[*layer, count] for layer, count in Counter(layers).items()]
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
    if kind in FREE:
        return None
    before = sum(math.prod(shape) for shape in shapes[:inputs] if shape)
    after = sum(math.prod(shape) for shape in shapes[inputs:] if shape)
    if kind in SCALAR:
        return ("scalar", 0, 0, after if kind == "PriorBox" else before)
    if kind == "InnerProduct":
        weights = int(options["2"])
        return ("linear", weights, weights, before + after)
    if kind not in ("Convolution", "ConvolutionDepthWise"):
        return ("memory", 0, 0, before + after)
    weights, output = int(options["6"]), shapes[inputs]
    macs = weights * output[0] * output[1]
    return (convolution_kind(kind, options, shapes[0]), macs, weights, before + after)


def convolution_kind(kind: str, options: dict[str, str], into: tuple[int, ...]) -> str:
    """How ncnn runs a convolution."""
    outputs = int(options["0"])
    if kind == "ConvolutionDepthWise":
        return "depthwise" if int(options.get("7", "1")) == outputs else "dense"
    if outputs % 4:
        return "ragged"  # the outputs do not fill a vector of four
    square = "11" not in options
    if options.get("1") == "1" and square:
        return "pointwise"
    plain = options.get("1") == "3" and square and options.get("3", "1") == "1"
    return "winograd" if plain and into and into[2] >= 8 else "dense"


Timings = dict[tuple[str, int, int], dict[str, float]]


def read_timings(repository: Repository) -> Timings:
    """Minimum milliseconds by (section, threads, powersave), CPU runs only."""
    found: Timings = {}
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


def read_rows(timings: Timings, known: set[str]) -> list[dict[str, object]]:
    """A row per board, threads and precision, in the order of :data:`BOARDS`."""
    rows: list[dict[str, object]] = []
    for board in BOARDS:
        for threads in board.threads:
            heading, table = choose(timings, board, threads)
            for precision, suffix in (("float", ""), ("int8", "_int8")):
                ms = {n: table[n + suffix] for n in sorted(known) if n + suffix in table}
                rows.append(
                    {
                        "board": board.id,
                        "section": heading,
                        "threads": threads,
                        "half": board.half,
                        "precision": precision,
                        "ms": ms,
                    }
                )
    return rows


def choose(timings: Timings, board: Board, threads: int) -> tuple[str, dict[str, float]]:
    """Heading and timings of one board and setting."""
    for (heading, count, powersave), table in timings.items():
        if board.section in heading and (count, powersave) == (threads, board.powersave):
            return heading, table
    raise SystemExit(f"no timings for {board.section!r} with {threads} threads")


if __name__ == "__main__":
    main()
