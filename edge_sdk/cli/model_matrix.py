"""``edge model matrix``: many models x many profiles, here or on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_fit import options_of
from edge_sdk.cli.model_options import cache_from, cache_options, needs_converters
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import GateError, UsageError

if TYPE_CHECKING:
    from converters.spread import Row


@click.command(
    name="matrix", help="Fit several TASKS (path.py:Class) to several profiles at a time."
)
@click.argument("tasks", nargs=-1, required=True)
@click.option("-p", "--profile", "profiles", multiple=True, required=True, help="Repeatable.")
@click.option(
    "-o",
    "--out",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("out/matrix"),
    show_default=True,
    help="Folder that gets one conversion per task.",
)
@click.option("--latency-ms", type=float, help="Per inference, on the device.")
@click.option("--memory-mib", type=float, help="Of the process that runs the model.")
@click.option("--accuracy-drop", type=float, help="Against PyTorch at full size, 0..1.")
@click.option("--schemes", help="Comma-separated; default: what each profile runs.")
@click.option("--ray", help="Address of a Ray cluster, or local; without it: processes here.")
@click.option("--workers", type=click.IntRange(1, 256), help="Searches at a time on this machine.")
@click.option("--force", is_flag=True, help="Replace folders that are not conversions.")
@cache_options
@with_output
def matrix(
    out: Output, /, tasks: tuple[str, ...], profiles: tuple[str, ...], **options: Any
) -> None:
    """One search per task, spread over processes or machines; a failure ends no other."""
    chosen = options_of(
        dict.fromkeys(("resolutions", "widths", "threads", "weights")) | {"runtimes": ()} | options
    )
    needs_converters()
    from converters.spread import Cell, run_matrix

    cache_from(options)  # refuses a folder that cannot be one before anything starts
    from converters.cache import default_folder

    cache = None if options["no_cache"] else (options["cache_folder"] or default_folder())
    cells = [
        Cell(
            task=_absolute(task),
            profiles=profiles,
            out=options["folder"].absolute() / name,
            options=chosen,
            cache=cache.absolute() if cache is not None else None,
        )
        for task, name in zip(tasks, _names(tasks), strict=True)
    ]
    with out.progress("matrix", len(cells)) as bar:
        rows = run_matrix(cells, ray=options["ray"], workers=options["workers"], progress=bar.step)
    _show(out, rows, profiles)
    out.result([_data(row) for row in rows])
    _check(rows)
    out.next_step(f"open {options['folder']}")


def _absolute(task: str) -> str:
    path, colon, name = task.rpartition(":")
    return f"{Path(path).absolute()}{colon}{name}" if colon else task


def _names(tasks: tuple[str, ...]) -> list[str]:
    """A folder per task, named after its class.

    Raises:
        UsageError: ``usage.same-task``.
    """
    names = [task.rpartition(":")[2].lower() for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            "same-task",
            f"Two tasks would be written to a folder named {twice[0]}.",
            "Give each class once, under a name of its own.",
        )
    return names


def _show(out: Output, rows: list[Row], profiles: tuple[str, ...]) -> None:
    cells = []
    for row in rows:
        name = row.task.rpartition(":")[2]
        if row.result is None:
            cells.append((name, *("failed" for _ in profiles)))
            continue
        found = row.result["profiles"]
        cells.append((name, *(_cell(found[profile]["ladder"]) for profile in found)))
    out.table("points that fit, and the fastest", ("task", *profiles), cells)
    for row in rows:
        if row.error is not None:
            out.line(f"{row.task}: {row.error.code}: {row.error.cause}", "red")


def _cell(ladder: list[dict[str, Any]]) -> str:
    if not ladder:
        return "nothing fits"
    last = ladder[-1]
    band = last["predicted"]
    shown = f"{band['low_ms']:.2f}-{band['high_ms']:.2f} ms" if band else "uncalibrated"
    return f"{len(ladder)}: {shown}"


def _data(row: Row) -> dict[str, Any]:
    error = row.error.as_dict() if row.error is not None else None
    return {"task": row.task, "result": row.result, "unfit": list(row.unfit), "error": error}


def _check(rows: list[Row]) -> None:
    """The first failure decides about the exit code; then what fits nowhere."""
    for row in rows:
        if row.error is not None:
            raise row.error
    unfit = [f"{row.task.rpartition(':')[2]} on {name}" for row in rows for name in row.unfit]
    if unfit:
        raise GateError(
            "nothing-fits",
            f"Nothing fits: {', '.join(unfit)}.",
            "edge model fit TASK says what would have to give.",
        )
