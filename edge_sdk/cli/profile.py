"""``edge profile``: device profiles, shipped or your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.output import Output, with_output
from edge_sdk.cli.profile_calibrate import calibrate, diff
from edge_sdk.errors import GateError

if TYPE_CHECKING:
    from device_profiles.probe import ProbeResult
    from edge_sdk.contracts.profile import CostRow, DeviceProfile


@click.group()
def command() -> None:
    """Device profiles: what a board can do, and how fast it is expected to do it."""


command.add_command(calibrate)
command.add_command(diff)


@command.command("list")
@with_output
def list_profiles(out: Output) -> None:
    """List the shipped profiles."""
    from device_profiles.latency import profile_mape_percent
    from device_profiles.loader import load_profile, profile_ids

    profiles = [load_profile(name) for name in profile_ids()]
    out.table(
        "",
        ["profile", "board", "cores", "latency model"],
        [
            [
                profile.id,
                profile.title,
                sum(cluster.cores for cluster in profile.cpu),
                _calibration(profile),
            ]
            for profile in profiles
        ],
    )
    out.result(
        [
            {
                "id": p.id,
                "title": p.title,
                "family": p.family,
                "calibrated": bool(p.cost),
                "mape_percent": profile_mape_percent(p),
            }
            for p in profiles
        ]
    )
    out.next_step("edge profile show rpi4", "edge profile probe")


@command.command()
@click.argument("profile")
@with_output
def show(out: Output, profile: str) -> None:
    """Show PROFILE: a shipped id such as rpi4, or the path of a TOML file."""
    import msgspec

    from device_profiles.loader import load_profile
    from device_profiles.sources import unverified

    loaded = load_profile(profile)
    for label, value in _facts(loaded):
        out.line(f"{label:<12} {value}")
    _cost_table(out, loaded)
    if loaded.reference:
        rows = [[r.model, r.runtime, r.precision, r.unit, r.ms, r.source] for r in loaded.reference]
        columns = ["network", "runtime", "precision", "unit", "ms", "source"]
        out.table("Published measurements", columns, rows)
    if loaded.notes:
        out.line(loaded.notes)
    _show_unverified(out, loaded)
    out.result(
        msgspec.to_builtins(loaded)
        | {"not_verified": {source.key: source.text for source in unverified(loaded)}}
    )
    out.next_step(f"edge model convert examples/digits/task.py:Digits -p {profile} -o out")


@command.command()
@click.option(
    "--sysroot",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    help="Read another root file system, e.g. an SD card's.",
)
@with_output
def probe(out: Output, sysroot: Path) -> None:
    """Recognise this machine, and say why."""
    import msgspec

    from device_profiles.probe import probe as probe_machine

    found = probe_machine(sysroot)
    runtimes = _runtimes() if sysroot == Path("/") else {}
    out.line(f"profile      {found.profile or 'none fits'}", style="bold")
    for reason in found.reasons:
        out.line(f"             {reason}")
    for label, value in _machine_facts(found):
        out.line(f"{label:<12} {value}")
    for name, finding in runtimes.items():
        out.line(f"{name:<12} {finding}")
    out.result({**msgspec.to_builtins(found), "runtimes": runtimes})
    if found.profile:
        out.next_step(f"edge profile show {found.profile}")
    else:
        out.next_step("edge profile list", "edge profile show rpi4 --json  # a start for your own")


@command.command()
@click.argument("profiles", nargs=-1, metavar="[PROFILE]...")
@with_output
def validate(out: Output, profiles: tuple[str, ...]) -> None:
    """Check PROFILEs, ids or TOML files, and print how far their latency model errs.

    Without an argument all shipped profiles are checked. Exit code 3 when the leave-one-out error
    of a calibrated profile exceeds 20 %.
    """
    from device_profiles.loader import load_profile, profile_ids

    results = []
    for name in profiles or profile_ids():
        profile = load_profile(_id_or_path(name))
        results.append(_validated(profile))
        out.line(f"{name} is a valid profile ({profile.id}).", style="green")
        _errors_table(out, profile)
        _show_unverified(out, profile)
    _within_the_bar(results)
    out.result(results[0] if len(profiles) == 1 else results)
    out.next_step(f"edge profile show {profiles[0] if profiles else 'rpi4'}")


def _within_the_bar(results: list[dict[str, Any]]) -> None:
    from device_profiles.latency import COARSE_PERCENT

    errs = {r["id"]: r["mape_percent"] for r in results if r["mape_percent"] is not None}
    over = {name: percent for name, percent in errs.items() if percent > COARSE_PERCENT}
    if over:
        said = ", ".join(f"{name} by {percent:.1f} %" for name, percent in over.items())
        raise GateError(
            "latency-model",
            f"The latency model errs more than {COARSE_PERCENT:g} % on networks left out: {said}.",
            "Measure more networks, of different kinds: edge profile calibrate. Or remove the rows "
            "that err: without rows nothing is predicted.",
        )


def _show_unverified(out: Output, profile: DeviceProfile) -> None:
    from device_profiles.sources import unverified

    found = unverified(profile)
    if found:
        out.line("  not verified here, wholly or in part:", style="yellow")
    for source in found:
        out.line(f"    {source.key}: {source.text}")


def _id_or_path(name: str) -> str:
    """A file that exists is meant before a shipped id of the same name."""
    path = Path(name)
    return str(path.absolute()) if path.is_file() else name


def _validated(profile: DeviceProfile) -> dict[str, Any]:
    from device_profiles.latency import is_coarse, profile_mape_percent
    from device_profiles.sources import unverified

    rows = [
        {
            "runtime": row.runtime,
            "precision": row.precision,
            "threads": row.threads,
            "models": row.models,
            "error_percent": row.error_percent,
            "coarse": is_coarse(row),
        }
        for row in profile.cost
    ]
    mape = profile_mape_percent(profile)
    return {
        "id": profile.id,
        "valid": True,
        "calibrated": bool(profile.cost),
        "mape_percent": mape,
        "cost": rows,
        "not_verified": {source.key: source.text for source in unverified(profile)},
    }


def _errors_table(out: Output, profile: DeviceProfile) -> None:
    from device_profiles.latency import is_coarse, profile_mape_percent

    if not profile.cost:
        out.line("  uncalibrated: no latency is predicted, not even roughly")
        return
    out.table(
        "",
        ["runtime", "precision", "threads", "networks", "leave-one-out MAPE %", ""],
        [
            [
                row.runtime,
                row.precision,
                row.threads,
                row.models,
                row.error_percent,
                "coarse: band widened" if is_coarse(row) else "",
            ]
            for row in profile.cost
        ],
    )
    out.line(f"  leave-one-out MAPE of the profile: {profile_mape_percent(profile):.1f} %")


def _calibration(profile: DeviceProfile) -> str:
    if not profile.cost:
        return "uncalibrated"
    from device_profiles.latency import is_coarse, profile_mape_percent

    coarse = sum(map(is_coarse, profile.cost))
    more = f", {coarse} of {len(profile.cost)} rows coarse" if coarse else ""
    return f"MAPE {profile_mape_percent(profile):.1f} %{more}"


def _facts(profile: DeviceProfile) -> list[tuple[str, str]]:
    memory = profile.memory
    bandwidth = f", {memory.bandwidth_gb_s:g} GB/s" if memory.bandwidth_gb_s else ""
    facts = [
        ("id", profile.id),
        ("board", f"{profile.title} ({profile.soc}, {profile.machine})"),
    ]
    for cluster in profile.cpu:
        features = " ".join(cluster.features)
        facts.append(("cpu", f"{cluster.cores} x {cluster.uarch} {cluster.mhz} MHz {features}"))
    if profile.cpu_source:
        facts.append(("", profile.cpu_source))
    facts.append(("memory", f"{'/'.join(map(str, memory.variants_mib))} MiB{bandwidth}"))
    facts.append(("", memory.source))
    for runtime in profile.runtimes:
        schemes = ", ".join(runtime.schemes)
        facts.append(("runtime", f"{runtime.name} >= {runtime.min_version}: {schemes}"))
    for unit in profile.accelerators:
        facts.append((unit.kind, f"{unit.name} ({unit.source})"))
        facts.extend(
            ("", f"{limits.runtime}: {len(limits.ops)} operators ({limits.source})")
            for limits in unit.constraints
        )
    if heat := profile.thermal:
        limits = f"slows at {heat.throttle_celsius:g} C, stops at {heat.critical_celsius:g} C"
        facts.append(("thermal", f"{limits} ({heat.source})"))
    return facts


def _machine_facts(found: ProbeResult) -> list[tuple[str, str]]:
    facts = found.facts
    rows = [
        ("machine", facts.machine),
        ("board", facts.device_tree_model or facts.android_soc),
        ("cpu", f"{len(facts.cpu)} x {', '.join(sorted(set(facts.cpu)))}"),
        ("features", " ".join(facts.cpu_features)),
        ("clock", f"{facts.max_mhz} MHz" if facts.max_mhz else ""),
        ("memory", f"{facts.memory_mib} MiB" if facts.memory_mib else ""),
        ("heat", ", ".join(f"{name} {c:.0f} C" for name, c in facts.thermal_celsius.items())),
        ("pressure", "the kernel reports it" if facts.has_pressure else "not reported"),
    ]
    return [(label, value) for label, value in rows if value]


def _runtimes() -> dict[str, str]:
    from edge_sdk.runtime.negotiate import available

    return {**available("tflite"), **available("onnx")}


def _cost_table(out: Output, profile: DeviceProfile) -> None:
    if not profile.cost:
        out.line("Uncalibrated: no latency is predicted for this profile.")
        return
    columns = (
        "runtime",
        "precision",
        "threads",
        "dense GMAC/s",
        "depthwise",
        "GB/s",
        "us/layer",
        "error %",
    )
    out.table(
        "Latency model (leave-one-out errors)",
        columns,
        [
            [
                row.runtime,
                row.precision,
                row.threads,
                row.dense_gmac_s,
                row.depthwise_gmac_s,
                row.bandwidth_gb_s,
                row.overhead_us,
                row.error_percent,
            ]
            for row in profile.cost
        ],
    )
    for origin in dict.fromkeys(_origin(row) for row in profile.cost):
        out.line(f"  {origin}")
    for source in dict.fromkeys(row.source for row in profile.cost):
        out.line(f"  {source}")


def _origin(row: CostRow) -> str:
    where = f" on {row.device}" if row.device else ""
    more = ", ".join(f"{name} +{percent:g} %" for name, percent in row.transfer_percent.items())
    return f"Fitted on {row.runtime}{where}." + (f" Further error for {more}." if more else "")
