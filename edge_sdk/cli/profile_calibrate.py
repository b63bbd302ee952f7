"""``edge profile calibrate`` and ``edge profile diff``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import ProfileError, UsageError

if TYPE_CHECKING:
    from device_profiles.calibrate import Measurement, Refit
    from edge_sdk.contracts.profile import DeviceProfile

FILE = click.Path(path_type=Path)


@click.command("diff")
@click.argument("first")
@click.argument("second")
@with_output
def diff(out: Output, first: str, second: str) -> None:
    """Show what differs between the profiles FIRST and SECOND, key by key."""
    from device_profiles.diff import diff as compare
    from device_profiles.loader import load_profile

    found = compare(load_profile(first), load_profile(second))
    rows = [[item.key, _cell(item.first), _cell(item.second)] for item in found]
    if rows:
        out.table("", ["key", first, second], rows)
    else:
        out.line("The profiles are the same.", style="green")
    out.result([{"key": d.key, "first": d.first, "second": d.second} for d in found])
    out.next_step(f"edge profile show {second}")


@click.command("calibrate")
@click.argument("profile_id", metavar="PROFILE")
@click.option("--measurements", type=FILE, help="JSON lines: file, runtime, threads, latency_ms.")
@click.option("--telemetry", type=FILE, help="JSON lines of telemetry samples.")
@click.option("--conversion", type=FILE, help="Folder that the telemetry's devices ran.")
@click.option("--measure", is_flag=True, help="Time a set of networks on this machine.")
@click.option("-t", "--threads", type=click.IntRange(1, 1024), help="For --measure.")
@click.option("-o", "--out", "target", type=FILE, help="Default: PROFILE-calibrated.toml.")
@click.option("--force", is_flag=True, help="Replace the output file.")
@with_output
def calibrate(
    out: Output,
    /,
    profile_id: str,
    measurements: Path | None,
    telemetry: Path | None,
    conversion: Path | None,
    measure: bool,
    threads: int | None,
    target: Path | None,
    force: bool,
) -> None:
    """Refit the cost rows of PROFILE, and write them as a profile of your own."""
    from device_profiles.calibrate import calibrate as refit
    from device_profiles.loader import load_profile
    from device_profiles.toml_out import profile_toml
    from edge_sdk.durable import DiskStorage

    profile = load_profile(profile_id)
    target = target or Path(f"{profile.id}-calibrated.toml")
    _may_write(target, force)
    if sum((measurements is not None, telemetry is not None, measure)) != 1:
        raise UsageError(
            "calibrate-source",
            "Exactly one of --measurements, --telemetry and --measure is needed.",
            "Measure on this machine: edge profile calibrate x86-generic --measure.",
        )
    if telemetry is not None and conversion is None:
        raise UsageError(
            "calibrate-conversion",
            "Telemetry names operating points, not layers.",
            "Name the conversion the devices ran: --conversion FOLDER.",
        )
    found = _collect(out, profile, measurements, telemetry, conversion, threads, measure)
    given = measurements or telemetry
    source = f"own measurements: {given.name if given else 'this machine'}"
    refitted, refits = refit(profile, found, source)
    DiskStorage().write(target, profile_toml(refitted).encode())
    _show(out, refits, target)
    out.result(
        {
            "profile": str(target),
            "rows": [
                {
                    "runtime": r.row.runtime,
                    "precision": r.row.precision,
                    "threads": r.row.threads,
                    "models": r.row.models,
                    "error_percent": r.row.error_percent,
                    "before_percent": r.before_percent,
                    "left_out": r.errors,
                }
                for r in refits
            ],
        }
    )
    out.next_step(f"edge profile validate {target}", f"edge profile diff {profile_id} {target}")


def _collect(
    out: Output,
    profile: DeviceProfile,
    measurements: Path | None,
    telemetry: Path | None,
    conversion: Path | None,
    threads: int | None,
    measure: bool,
) -> list[Measurement]:
    from edge_sdk.cli.model_options import needs

    needs("onnx", "ai_edge_litert")
    from converters.measurements import measure_here, read_measurements, read_telemetry
    from device_profiles.calibrate import check_threads

    if measurements is not None:
        return read_measurements(measurements)
    if telemetry is not None and conversion is not None:
        return read_telemetry(telemetry, conversion, profile.id)
    needs("torch", "onnxruntime", "litert_torch")
    check_threads(profile, threads or 1)  # before minutes of measuring
    with (
        tempfile.TemporaryDirectory(prefix="edge-calibrate-") as scratch,
        out.progress("measure", None) as bar,
    ):
        return measure_here(threads or profile.default_threads, Path(scratch), bar.step)


def _may_write(target: Path, force: bool) -> None:
    from importlib import resources

    with resources.as_file(resources.files("device_profiles") / "data") as shipped:
        if target.resolve().parent == shipped.resolve():
            raise ProfileError(
                "shipped",
                f"{target} lies among the shipped profiles.",
                "Write to a file of your own: --out my.toml.",
            )
    if target.exists() and not force:
        raise ProfileError(
            "exists", f"{target} exists.", "Choose another name with --out, or pass --force."
        )


def _show(out: Output, refits: list[Refit], target: Path) -> None:
    out.table(
        "Refitted rows (leave-one-out errors)",
        ["runtime", "precision", "threads", "networks", "error %", "old row's error %"],
        [
            [
                refit.row.runtime,
                refit.row.precision,
                refit.row.threads,
                refit.row.models,
                refit.row.error_percent,
                "no row" if refit.before_percent is None else f"{refit.before_percent:.0f}",
            ]
            for refit in refits
        ],
    )
    for refit in refits:
        for name, error in sorted(refit.errors.items(), key=lambda pair: -abs(pair[1]))[:3]:
            out.line(f"  {refit.row.runtime} {name}: {100 * error:+.0f} %")
    out.line(f"Written: {target}", style="green")


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
