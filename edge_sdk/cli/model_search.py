"""``edge model search``: sub-networks of a supernet for latency budgets."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import needs
from edge_sdk.cli.output import Output, with_output

if TYPE_CHECKING:
    from converters.supernet.run import Searched
    from converters.supernet.train import Epoch


@click.command(
    help="Train TASK (path.py:Class) once with many of its sub-networks, and find the best one for "
    "every profile and latency: width, depth, kernels and resolution. They need no training of "
    "their own."
)
@click.argument("task")
@click.option(
    "-p", "--profile", "profiles", multiple=True, required=True, help="Id or file; repeatable."
)
@click.option(
    "--latency-ms",
    "latencies",
    multiple=True,
    required=True,
    type=float,
    help="Per inference, on the device; repeatable, for each profile.",
)
@click.option("--scheme", default="fp32", show_default=True, help="That latency is predicted for.")
@click.option("-w", "--weights", type=click.Path(path_type=Path), help="Of the trained network.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("supernet.json"), show_default=True
)
@click.option("--epochs", type=int, help="Of the full network, instead of the task's own number.")
@click.option(
    "--candidates",
    default=200,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Sub-networks measured per budget.",
)
@click.option("--seed", default=0, show_default=True)
@with_output
def search(out: Output, /, task: str, **options: Any) -> None:
    """Train, search, write what ``--slim`` of convert and fit takes."""
    needs("torch")
    from converters.loading import load_task
    from converters.supernet.run import Target, run
    from converters.supernet.search import Effort

    pairs = itertools.product(
        dict.fromkeys(options["profiles"]), dict.fromkeys(options["latencies"])
    )
    with out.progress("search", None) as bar:

        def report(epoch: Epoch) -> None:
            bar.step(f"{epoch.phase}, epoch {epoch.number} of {epoch.epochs}")
            out.line(
                f"{epoch.phase:6} epoch {epoch.number:3d}/{epoch.epochs}  loss {epoch.loss:.4f}  "
                f"{epoch.seconds:.1f} s"
            )

        found = run(
            load_task(task),
            options["out"],
            [Target(profile, ms, options["scheme"]) for profile, ms in pairs],
            effort=Effort(candidates=options["candidates"], seed=options["seed"]),
            weights=options["weights"],
            epochs=options["epochs"],
            report=report,
            progress=bar.step,
        )
    _show(out, found)
    out.result(_data(found))
    out.next_step(
        f"edge model convert {task} --slim {found.path}",
        f"edge model fit {task} --slim {found.path} --profile {options['profiles'][0]}",
    )


def _show(out: Output, found: Searched) -> None:
    rows = [
        (
            choice.target.name,
            f"{choice.found.cost:.3g}",
            f"{choice.width:g}",
            choice.size,
            f"{choice.macs / 1e6:.2f}",
            f"{choice.accuracy * 100:.2f}",
        )
        for choice in found.choices
    ]
    columns = ("budget", "predicted ms", "width", "resolution", "M MACs", "accuracy %")
    out.table(f"{len(rows)} of {found.space:.3g} sub-networks", columns, rows)
    bill = found.bill
    out.line(f"the full network: {found.full_accuracy * 100:.2f} %")
    out.line(
        f"training {bill.training_seconds:.0f} s + search {bill.search_seconds:.0f} s for "
        f"{bill.candidates} candidates; training each by itself: at least "
        f"{bill.separate_seconds:.0f} s, {bill.ratio:.1f} times as much"
    )
    out.line(f"{found.path}, weights {found.weights.name}")


def _data(found: Searched) -> dict[str, Any]:
    bill = found.bill
    return {
        "slim": str(found.path),
        "weights": str(found.weights),
        "space": found.space,
        "full_accuracy": found.full_accuracy,
        "subnets": [
            {
                "profile": choice.target.profile,
                "scheme": choice.target.scheme,
                "latency_ms": choice.target.latency_ms,
                "predicted_ms": choice.found.cost,
                "width": choice.width,
                "resolution": choice.size,
                "macs": round(choice.macs),
                "accuracy": choice.accuracy,
                "exhaustive": choice.found.exhaustive,
            }
            for choice in found.choices
        ],
        "bill": {
            "candidates": bill.candidates,
            "training_seconds": bill.training_seconds,
            "search_seconds": bill.search_seconds,
            "separate_seconds_at_least": bill.separate_seconds,
            "ratio": bill.ratio,
        },
    }
