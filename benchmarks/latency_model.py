"""Bar 5: the latency model's leave-one-out error, from the tables that the project carries.

Fits all published rows together (``device_profiles/pooling.py``), leaves out each network in turn
from every row, and prints the mean absolute percentage error per row and per profile::

    python benchmarks/latency_model.py            # the table
    python benchmarks/latency_model.py --check    # exit 1 above 20 %, or when the profiles differ
    python benchmarks/latency_model.py --write    # put the rows into device_profiles/data
    python benchmarks/latency_model.py --quick    # believe the errors that the profiles state

A profile passes when all its left-out predictions together err by at most 20 %. A single row that
exceeds it is marked coarse, there and in every prediction, and its band is widened.

Rows for other runtimes: 3x3 convolutions count as plain dense ones, because LiteRT and ONNX Runtime
have no Winograd kernels on CPUs. Where TFLite's own timings of a board are public (XNNPACK's
README), rows for LiteRT are scaled to those.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from device_profiles.fit import PARAMETERS, predict_ms
from device_profiles.latency import COARSE_PERCENT
from device_profiles.loader import load_profile
from device_profiles.pooling import PooledRow, fit_published
from device_profiles.published import Published, load_published
from device_profiles.toml_out import cost_toml
from edge_sdk.contracts.profile import CostRow

DATA = Path(__file__).parent.parent / "device_profiles" / "data"
MARKER = "# Cost rows below: written by benchmarks/latency_model.py --write, do not edit.\n"
BAR_PERCENT = COARSE_PERCENT


@dataclass(frozen=True)
class Target:
    """A profile and the board its rows come from."""

    profile: str
    board: str
    stand_in: str = ""
    """Set when the board is not the profile's."""
    extra_percent: int = 0
    """Further error of standing in."""


TARGETS = (
    Target("rpi-zero-2w", "rpi-zero-2w"),
    Target("rpi3b-plus", "rpi3b-plus"),
    Target("rpi4", "rpi4"),
    Target("rpi4-coral", "rpi4"),
    Target("rpi5", "rpi5"),
    Target("rpi5-hailo8l", "rpi5"),
    Target("jetson-nano", "jetson-nano"),
    Target("jetson-orin-nano", "jetson-orin-nano"),
    Target("jetson-agx-orin", "jetson-agx-orin"),
    Target("snapdragon-8-gen2", "snapdragon-8-gen2"),
    Target("snapdragon-8-gen3", "snapdragon-8-gen2", "Snapdragon 8 Gen 2 (SM8550), big cores", 30),
    Target("dimensity-9300", "dimensity-9300"),
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

Transfer = dict[str, dict[str, int]]
"""Percent by precision and runtime."""


def main() -> None:
    """Fit, print, and optionally check or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="do not fit again")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is missed")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--write", action="store_true", help="update device_profiles/data")
    arguments = parser.parse_args()
    if arguments.quick:
        report = {t.profile: stated(t.profile) for t in TARGETS}
    else:
        if not arguments.json:
            print("Fitting all boards together, each network left out in turn (half a minute)...")
        report = recompute(arguments.write)
    problems = show(report, quiet=arguments.json)
    if not arguments.quick and not arguments.write:
        problems += [
            f"{name}: the profile states other errors than computed here"
            for name, rows in report.items()
            if rows != stated(name)
        ]
    worst = max(mape(rows) for rows in report.values())
    if arguments.json:
        print(json.dumps({"profiles": report, "problems": problems, "worst_percent": worst}))
    else:
        for problem in problems:
            print(f"missed: {problem}")
        verdict = "held" if worst <= BAR_PERCENT else "missed"
        print(
            f"worst of {len(report)} calibrated profiles: leave-one-out MAPE {worst:.1f} % "
            f"(bar: at most {BAR_PERCENT:.0f} %, {verdict})"
        )
    if arguments.check and problems:
        sys.exit(1)


Row = dict[str, object]


def recompute(write: bool) -> dict[str, list[Row]]:
    """Fit everything; the rows of each target."""
    published = load_published()
    pooled: list[PooledRow] = []
    for state in fit_published(published):
        pooled = state
    transfer = transfer_percent(published)
    report = {}
    for target in TARGETS:
        rows = target_rows(target, pooled, published, transfer)
        report[target.profile] = [described(row) for row in rows]
        if write:
            path = DATA / f"{target.profile}.toml"
            head = path.read_text().split("# Cost rows below:")[0]
            path.write_text(head + MARKER + cost_toml(tuple(rows)))
    return report


def stated(profile: str) -> list[Row]:
    """What the shipped profile says about its rows."""
    return [described(row) for row in load_profile(profile).cost]


def described(row: CostRow) -> Row:
    """The part of a row that this benchmark is about."""
    return {
        "runtime": row.runtime,
        "precision": row.precision,
        "threads": row.threads,
        "models": row.models,
        "error_percent": row.error_percent,
        "coarse": row.error_percent > BAR_PERCENT,
    }


def mape(rows: Sequence[Row]) -> float:
    """Of all left-out predictions of a profile; rows derived from another count once."""
    unique = {(r["runtime"], r["threads"], r["models"], r["error_percent"]): r for r in rows}
    models = sum(int(str(r["models"])) for r in unique.values())
    return sum(float(str(r["error_percent"])) * int(str(r["models"])) for r in unique.values()) / (
        models
    )


def show(report: dict[str, list[Row]], quiet: bool) -> list[str]:
    """Print the table; returns the profiles that miss the bar."""
    problems = []
    for name, rows in report.items():
        percent = mape(rows)
        coarse = sum(bool(row["coarse"]) for row in rows)
        if not quiet:
            more = f", {coarse} of {len(rows)} rows coarse" if coarse else ""
            print(f"{name}: leave-one-out MAPE {percent:.1f} %{more}")
            for r in rows:
                mark = "  coarse: band widened" if r["coarse"] else ""
                print(
                    f"    {r['runtime']:<7} {r['precision']:<5} {r['threads']:>2} threads  "
                    f"{r['models']:>2} networks  {r['error_percent']:>5.1f} %{mark}"
                )
        if percent > BAR_PERCENT:
            problems.append(f"{name}: {percent:.1f} % exceeds {BAR_PERCENT:.0f} %")
    return problems


def transfer_percent(published: Published) -> Transfer:
    """How far another runtime is from ncnn, mean over published pairs, by precision and runtime."""
    onnxruntime = round(100 * statistics.mean(other / ncnn - 1 for ncnn, other in ULTRALYTICS))
    found = {}
    for precision, theirs in (("fp32", "float"), ("int8", "int8")):
        ratios = [
            other_ms / row.ms[network]
            for row in published.rows
            if row.threads == 4 and row.precision == theirs
            for network, other_ms in XNNPACK.get(row.board, {}).get(precision, {}).items()
            if network in row.ms
        ]
        litert = round(100 * statistics.mean(max(ratio, 1 / ratio) - 1 for ratio in ratios))
        found[precision] = {"litert": litert, "onnxruntime": onnxruntime}
    return {**found, "fp16": found["fp32"]}


def target_rows(
    target: Target, pooled: list[PooledRow], published: Published, transfer: Transfer
) -> list[CostRow]:
    """Cost rows of a profile."""
    mine = [item for item in pooled if item.row.board == target.board]
    rows = []
    for item in mine:
        if item.row.precision == "int8":
            rows.append(cost_row(target, item, "int8", transfer, published.source))
            continue
        native = "fp16" if item.row.half else "fp32"
        rows.append(cost_row(target, item, native, transfer, published.source))
        if item.row.half:
            note = f"{published.source}; from fp16: half as many fp32 lanes per vector"
            rows.append(cost_row(target, item, "fp32", transfer, note, slower=2.0))
        if item.row.threads == 4:
            for precision, theirs in XNNPACK.get(target.board, {}).items():
                rows.append(litert_row(target, item, precision, theirs, published))
    return rows


def cost_row(
    target: Target,
    item: PooledRow,
    precision: str,
    transfer: Transfer,
    source: str,
    slower: float = 1.0,
) -> CostRow:
    """A row of ncnn's kernels."""
    foreign = {
        name: float(more + target.extra_percent) for name, more in transfer[precision].items()
    }
    return make_row(
        "ncnn",
        precision,
        item.row.threads,
        rates_of(item, slower),
        models=len(item.errors),
        errors=(item.percent, item.worst_percent),
        transfer_percent=foreign,
        device=target.stand_in,
        source=source,
    )


def rates_of(item: PooledRow, slower: float = 1.0) -> dict[str, float]:
    """A row's coefficients; ``slower`` divides the arithmetic only."""
    theta = dict(zip(PARAMETERS, np.exp(item.theta), strict=True))
    return {
        "dense_gmac_s": theta["dense"] / slower,
        "pointwise_gmac_s": theta["pointwise"] / slower,
        "depthwise_gmac_s": theta["depthwise"] / slower,
        "bandwidth_gb_s": theta["bandwidth"],
        "overhead_us": theta["overhead"],
    }


def litert_row(
    target: Target,
    item: PooledRow,
    precision: str,
    theirs: dict[str, float],
    published: Published,
) -> CostRow:
    """The float row on 4 threads scaled to TFLite's published timings.

    The networks are few and of one family, so the row's error is the float row's plus that of the
    factor, each network left out of both.
    """
    left_out = {
        name: math.log(ms / (item.row.ms[name] * (1 + item.errors[name])))
        for name, ms in theirs.items()
    }
    errors = [
        abs(math.exp(statistics.mean(v for o, v in left_out.items() if o != name) - log) - 1)
        for name, log in left_out.items()
    ]
    networks = published.networks(4)
    factor = math.exp(
        statistics.mean(
            math.log(ms / predict_ms(item.theta, networks[name])) for name, ms in theirs.items()
        )
    )
    quick = 4 if precision == "int8" else 1
    rates = {
        name: value * factor if name == "overhead_us" else value / factor
        for name, value in rates_of(item).items()
    }
    rates["bandwidth_gb_s"] /= quick
    return make_row(
        "litert",
        precision,
        item.row.threads,
        rates,
        models=len(theirs),
        errors=(
            item.percent + 100 * statistics.mean(errors),
            item.worst_percent + 100 * max(errors),
        ),
        transfer_percent={},
        device=target.stand_in,
        source=(
            f"google/XNNPACK README @75db3c093b (8 Feb 2022): the ncnn fp32 row scaled by "
            f"{factor:.3f} to TFLite's timings of MobileNets, "
            "error of both added"
        ),
    )


def make_row(
    runtime: str,
    precision: str,
    threads: int,
    rates: dict[str, float],
    *,
    models: int,
    errors: tuple[float, float],
    transfer_percent: dict[str, float],
    device: str,
    source: str,
) -> CostRow:
    """A row with rounded figures."""
    table = {
        "runtime": runtime,
        "precision": precision,
        "unit": "cpu",
        "threads": threads,
        **{name: float(f"{value:.4g}") for name, value in rates.items()},
        "models": models,
        "error_percent": round(errors[0], 1),
        "worst_percent": round(errors[1], 1),
        "transfer_percent": transfer_percent,
        "device": device,
        "source": source,
    }
    return msgspec.convert(table, CostRow)


if __name__ == "__main__":
    main()
