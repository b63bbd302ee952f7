"""``edge model cascade``: where a cheaper point may answer first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import needs_converters
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.cascade.points import Tried


@click.command(
    help="Let cheaper points of the conversion in FOLDER answer first, where that pays. "
    "TASK (path.py:Class) gives the samples; labels are not used."
)
@click.argument("task")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    default=0.02,
    show_default=True,
    help="Share of frames that may be decided otherwise than by the better point, 0..1.",
)
@click.option("--least-saving", default=0.1, show_default=True, help="Of the mean latency, 0..1.")
@click.option("--seed", default=0, show_default=True, help="Of the division into folds.")
@with_output
def cascade(out: Output, /, task: str, folder: Path, **options: Any) -> None:
    """Run the files, choose thresholds, cross-validate, write what pays."""
    for name in ("tolerance", "least_saving"):
        if not 0.0 <= options[name] < 1.0:
            raise UsageError(
                "bad-share",
                f"--{name.replace('_', '-')} {options[name]:g} is no share.",
                "Give a number from 0 to below 1; 0.01 is one percent.",
            )
    needs_converters()
    from converters.cascade.calibrate import Terms
    from converters.cascade.points import add_cascades
    from converters.loading import load_task

    terms = Terms(options["tolerance"], options["least_saving"])
    with out.progress("cascade", None) as bar:
        found = add_cascades(
            load_task(task), folder, terms, seed=options["seed"], progress=bar.step
        )
    for profile in dict.fromkeys(one.profile for one in found.tried):
        rows = [_row(one) for one in found.tried if one.profile == profile]
        columns = ("first", "then", "looked at again", "decided otherwise", "saves", "note")
        out.table(f"cascades: {profile}", columns, rows)
    out.result(
        {
            "folder": str(folder),
            "cascades": {
                profile: {
                    full: {
                        "first": one.first,
                        "threshold": one.verdict.threshold,
                        "escalated": one.verdict.escalated,
                        "disagreement": one.verdict.disagreement,
                        "saving": one.verdict.saving,
                    }
                    for full, one in chosen.items()
                }
                for profile, chosen in found.chosen.items()
            },
        }
    )
    out.next_step(f"edge release create {folder} -o {folder}-release --name NAME --version 1")


def _row(one: Tried) -> tuple[str, ...]:
    verdict = one.verdict
    known = verdict.threshold <= 1.0
    return (
        one.first,
        one.full,
        f"{verdict.escalated:.1%}" if known else "–",
        f"{verdict.disagreement:.2%}" if known else "–",
        f"{verdict.saving:.1%}" if known else "–",
        verdict.refusal,
    )
