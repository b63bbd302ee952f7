"""``edge model fit``: the operating points that fit a device and a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import cache_from, cache_options, listed, needs_converters, sizes
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import GateError, UsageError

if TYPE_CHECKING:
    from converters.fit.run import Fit, FitOptions
    from converters.fit.search import Budget, Fitting

RISKS = {
    "none": "",
    "high": "band exceeds the budget",
    "mid": "likely too slow",
    "unknown": "uncalibrated",
}
MEMORY_SPREAD = 1.05
"""Between two measurements of one file's memory."""
MOST_REASONS = 8
"""Lines of rejections per profile in the table; ``--all`` and ``fit.json`` have every one."""


@click.command(
    name="fit", help="Find the operating points of TASK (path.py:Class) that fit a device."
)
@click.argument("task")
@click.option("-w", "--weights", type=click.Path(path_type=Path), help="State dict to load.")
@click.option("-o", "--out", "folder", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("-p", "--profile", "profiles", multiple=True, required=True, help="Repeatable.")
@click.option("--latency-ms", type=float, help="Per inference, on the device.")
@click.option("--memory-mib", type=float, help="Of the process that runs the model.")
@click.option("--accuracy-drop", type=float, help="Against PyTorch at full size, 0..1.")
@click.option("--schemes", help="Comma-separated; default: what each profile runs.")
@click.option("--resolutions", help="Comma-separated, e.g. 32x32,24x24.")
@click.option("--widths", help="Comma-separated, e.g. 1.0,0.5.")
@click.option(
    "--slim", type=click.Path(path_type=Path), help="Widths and weights of this slim.json."
)
@click.option("--threads", help="Comma-separated; default: one and what the profile knows.")
@click.option("--runtime", "runtimes", multiple=True, help="Only this runtime; repeatable.")
@click.option(
    "--repair",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="Equalize channels and correct biases where int8 misses --accuracy-drop.",
)
@click.option(
    "--mixed",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="Keep the worst layers in float32 where int8 still misses --accuracy-drop.",
)
@click.option("--all", "show_all", is_flag=True, help="Show every rejection.")
@click.option("--force", is_flag=True, help="Replace a folder that is not a conversion.")
@cache_options
@with_output
def fit(out: Output, /, task: str, profiles: tuple[str, ...], **options: Any) -> None:
    """Estimate, prune, measure what is left, and show why each other one is out."""
    chosen = options_of(options)
    needs_converters()
    from edge_sdk.cli.model_slim import slim_reference

    reference = slim_reference(task, options["slim"], options["weights"])
    from converters.fit.result import fit_data
    from converters.fit.run import fit as run

    folder: Path = options["folder"] or Path("out") / f"{task.rpartition(':')[2].lower()}-fit"
    cache = cache_from(options)
    with out.progress("fit", None) as bar:
        found = run(reference, profiles, folder, options=chosen, cache=cache, progress=bar.step)
    show(out, found, show_all=options["show_all"])
    if found.unfit:
        raise GateError("nothing-fits", *_nothing(found, task))
    out.result(fit_data(found) | {"folder": str(folder)})
    out.next_step(
        f"open {folder / 'report.html'}",
        f"edge release create {folder} -o {folder}-release --name NAME --version 1",
    )


def options_of(options: dict[str, Any]) -> FitOptions:
    """The search that the command line asks for.

    Raises:
        UsageError: ``usage.bad-budget``, ``usage.bad-number``, ``usage.bad-resolution``.
    """
    from converters.fit.estimate import Choices
    from converters.fit.run import FitOptions
    from converters.fit.search import Budget

    bounds = {name: options[name] for name in ("latency_ms", "memory_mib", "accuracy_drop")}
    for name, bound in bounds.items():
        least = 0.0 if name == "accuracy_drop" else 1e-9
        if bound is not None and not least <= bound <= (1.0 if name == "accuracy_drop" else 1e9):
            raise UsageError(
                "bad-budget",
                f"--{name.replace('_', '-')} {bound:g} is no possible budget.",
                "Give milliseconds or MiB over 0; an accuracy drop from 0 to 1, 0.01 is a point.",
            )
    return FitOptions(
        budget=Budget(**bounds),
        choices=Choices(
            schemes=tuple(dict.fromkeys(listed(options["schemes"]))),
            runtimes=options["runtimes"],
            threads=tuple(map(int, _numbers(options["threads"], "--threads", whole=True))),
        ),
        widths=_numbers(options["widths"], "--widths"),
        resolutions=tuple(dict.fromkeys(sizes(options["resolutions"]))),
        weights=options["weights"],
        repair=options["repair"] == "auto",
        mixed=options["mixed"] == "auto",
        force=options["force"],
    )


def show(out: Output, found: Fit, *, show_all: bool = False) -> None:
    """Ladders, reasons and what would have to give."""
    for name, verdict in found.verdicts.items():
        rows = [_row(item) for item in verdict.ladder]
        columns = ("operating point", "predicted ms (CPU)", "drop pt", "MiB", "note")
        if rows:
            out.table(f"{name}: {len(rows)} of {found.considered[name]} candidates", columns, rows)
        else:
            out.line(f"{name}: nothing fits ({found.considered[name]} candidates)", "bold red")
        most = len(verdict.rejected) if show_all else MOST_REASONS
        reasons = [(item.facts.point.name, item.reason) for item in verdict.rejected[:most]]
        if reasons:
            out.table("rejected", ("candidate", "why"), reasons)
        if len(verdict.rejected) > most:
            more = "--all, or fit.json" if found.out else "--all"
            out.line(f"and {len(verdict.rejected) - most} more: {more}")
        if not verdict.ladder:
            for line in _gives(found, name):
                out.line(f"  {line}")
    if found.repairs or found.mixed:
        helped = sum(repair.applied for repair in found.repairs)
        out.line(
            f"int8 files that missed --accuracy-drop: {helped} of {len(found.repairs)} repairs "
            f"helped, {found.mixed} files hold it with layers in float32"
        )
    taken, ran = found.passes
    out.line(f"{found.built} artifacts measured; {ran} passes run, {taken} from the cache")


def _row(item: Fitting) -> tuple[str, ...]:
    facts = item.facts
    band = facts.latency
    drop = f"{facts.accuracy_drop * 100:+.2f}" if facts.accuracy_drop is not None else "–"
    return (
        facts.point.name,
        f"{band.low_ms:.2f} – {band.high_ms:.2f}" if band is not None else "uncalibrated",
        drop,
        f"{facts.memory_mib:.0f}" if facts.memory_mib is not None else "–",
        "; ".join(filter(None, (RISKS[item.risk], facts.note))),
    )


def _nothing(found: Fit, task: str) -> tuple[str, str]:
    names = ", ".join(found.unfit)
    cause = f"Nothing fits {names} within the budget."
    gives = {name: lines[0] for name in found.unfit if (lines := _gives(found, name))}
    hints = [f"{name}: {line}" for name, line in gives.items()]
    if hints:
        hints[-1] += ". Relax that budget, or leave the profile out"
    stuck = [name for name in found.unfit if name not in gives]
    if stuck:
        only = f"Only hard limits stand in the way of {', '.join(stuck)}"
        hints.append(
            f"{only} ({_first_limit(found, stuck[0])}): change the model, or let --schemes, "
            "--runtime and --threads search more"
        )
    if any(_lost_to_int8(found, name) for name in found.unfit):
        hints.append(f"Or train int8 to be more accurate: edge model qat {task}")
    return cause, f"{'. '.join(hints)}."


def _first_limit(found: Fit, name: str) -> str:
    reasons = [item.reason for item in found.verdicts[name].rejected]
    return reasons[0] if reasons else "it runs nothing of what was asked for"


def _lost_to_int8(found: Fit, name: str) -> bool:
    """Whether a static int8 file is out for its accuracy alone."""
    return any(
        item.kind == "accuracy" and item.facts.point.scheme.startswith("static_wi8")
        for item in found.verdicts[name].rejected
    )


def _gives(found: Fit, name: str) -> list[str]:
    """What would have to give, least first."""
    from converters.fit.search import nearest

    return [
        f"{_relaxed(miss.budget)} lets {miss.facts.point.name} in"
        + ("" if miss.facts.digest else ", as far as is known before it is built")
        for miss in nearest(found.verdicts[name], found.budget)
    ]


def _relaxed(budget: Budget) -> str:
    parts = []
    if budget.latency_ms is not None:
        parts.append(f"--latency-ms {_up(budget.latency_ms, 2)}")
    if budget.memory_mib is not None:
        parts.append(f"--memory-mib {_up(budget.memory_mib * MEMORY_SPREAD, 0)}")
    if budget.accuracy_drop is not None:
        parts.append(f"--accuracy-drop {_up(budget.accuracy_drop, 4)}")
    return " and ".join(parts)


def _up(number: float, digits: int) -> str:
    """Rounded up, so that the budget shown really suffices."""
    import math

    scale = 10**digits
    return f"{math.ceil(number * scale - 1e-9) / scale:g}"


def _numbers(text: str | None, option: str, *, whole: bool = False) -> tuple[float, ...]:
    try:
        found = tuple(dict.fromkeys(float(part) for part in listed(text)))
    except ValueError:
        found = (-1.0,)
    if not all(0 < number <= 1024 and (number.is_integer() or not whole) for number in found):
        raise UsageError(
            "bad-number",
            f"{option} {text} is no list of {'whole numbers' if whole else 'numbers'}.",
            f"Write e.g. {'1,4' if whole else '1,0.5'}.",
        )
    return found
