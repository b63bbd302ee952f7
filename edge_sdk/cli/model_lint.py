"""``edge model lint``: what an accelerator makes of a model, before anything is promised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import GateError, ProfileError
from edge_sdk.suggest import did_you_mean

if TYPE_CHECKING:
    from converters.linting import FileLint
    from edge_sdk.contracts.profile import DeviceProfile

MOST_SHOWN = 40


@click.command(name="lint")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-p", "--profile", "profile_id", required=True, help="Id or TOML file.")
@click.option("--runtime", help="Only this runtime of the accelerator, e.g. litert-qnn.")
@click.option("--strict", is_flag=True, help="Exit with code 3 when anything falls back.")
@with_output
def lint(out: Output, /, path: Path, profile_id: str, runtime: str | None, strict: bool) -> None:
    """Walk the model file or conversion PATH against a profile's operator and shape constraints."""
    from edge_sdk.cli.model_options import needs

    needs("onnx", "ai_edge_litert")
    from converters.bench import model_files
    from converters.linting import lint_file
    from device_profiles.loader import load_profile

    profile = load_profile(profile_id)
    _has_constraints(profile, runtime)
    files = sorted(model_files(path))
    found: list[FileLint] = []
    with out.progress("lint", len(files)) as bar:
        for file in files:
            bar.step(file.name)
            found += [
                item for item in lint_file(file, profile) if runtime in (None, item.lint.runtime)
            ]
    for item in found:
        _show(out, item)
    if not found:
        out.line("No file has the format that the accelerator takes.", "yellow")
    out.result([item.as_dict() for item in found])
    out.next_step(f"edge profile show {profile_id}", f"edge model inspect {path}")
    failed = [item for item in found if not item.lint.clean]
    if strict and (failed or not found):
        raise _gate(failed, profile, path)


def _gate(failed: list[FileLint], profile: DeviceProfile, path: Path) -> GateError:
    if not failed:
        return GateError(
            "lint",
            f"No file of {path} has a format that the accelerator of {profile.id} takes.",
            "Convert to the other format: edge model convert --format.",
        )
    worst = max(failed, key=lambda item: len(item.lint.fallback))
    first = next(iter(worst.lint.findings))
    layer = f" in layer {first.module!r}" if first.module else ""
    return GateError(
        "lint",
        f"{worst.path.name}: {len(worst.lint.fallback)} of {worst.nodes} operators do not run on "
        f"{worst.accelerator} through {worst.lint.runtime}; first {first.op or 'the model'}"
        f"{layer}: {first.why}.",
        "Replace the layers that are named, or leave out --strict to accept the fallback.",
    )


def _has_constraints(profile: DeviceProfile, runtime: str | None) -> None:
    known = [limits.runtime for unit in profile.accelerators for limits in unit.constraints]
    if not profile.accelerators:
        raise ProfileError(
            "no-accelerator",
            f"{profile.id} has no accelerator, so there is nothing to fall back from.",
            "Lint against a profile with one: edge profile list.",
        )
    if not known or (runtime is not None and runtime not in known):
        units = ", ".join(unit.name for unit in profile.accelerators)
        wanted = f" for {runtime}" if runtime else ""
        hint = did_you_mean(runtime or "", known)
        if not known:
            hint = "Add [[accelerators.constraints]] to a copy of it, from the vendor's manual."
        raise ProfileError(
            "no-constraints", f"{profile.id} has no operator list{wanted} ({units}).", hint
        )


def _show(out: Output, item: FileLint) -> None:
    found = item.lint
    where = f"{item.path.name} on {item.accelerator} ({found.runtime})"
    if found.clean:
        out.line(f"{where}: all {item.nodes} operators are taken, in one piece.", "green")
        return
    out.line(f"{where}: {len(found.fallback)} of {item.nodes} operators stay on the CPU, "
             f"{found.partitions} parts on the accelerator.", "yellow")  # fmt: skip
    rows = [[f.module or "?", f.op or "model", f.rule, f.why] for f in found.findings]
    out.table("", ["layer", "operator", "rule", "why"], rows[:MOST_SHOWN])
    if len(rows) > MOST_SHOWN:
        out.line(f"  and {len(rows) - MOST_SHOWN} more (--json shows all)")
    if item.cpu:
        out.line(
            f"  fallback on the CPU: {item.cpu.low_ms:.2f}-{item.cpu.high_ms:.2f} ms "
            f"({item.cpu.basis})"
        )
    elif item.cpu_unknown:
        out.line(f"  fallback on the CPU: unknown, {item.cpu_unknown}")
    if item.transfer_ms is None:
        out.line("  transfer between the units: unknown, the bandwidth is not published")
    else:
        size = found.crossing_bytes / 1024
        out.line(
            f"  transfer between the units: {size:.0f} KiB, at least {item.transfer_ms:.3f} ms"
        )
    out.line(f"  constraints: {item.source}")
