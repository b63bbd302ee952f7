"""``edge model slim``: one network at several widths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import listed, needs
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.slim.run import Slimmed
    from converters.slim.settings import Settings
    from converters.slim.training import Progress


@click.command(
    help="Make TASK (path.py:Class) available at several widths: smaller networks whose weights "
    "are the beginning of the wide one's."
)
@click.argument("task")
@click.option("-w", "--weights", type=click.Path(path_type=Path), help="Of the trained network.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("slim.json"), show_default=True
)
@click.option(
    "--widths", default="1.0,0.75,0.5,0.35", show_default=True, help="The full 1.0 first."
)
@click.option(
    "--importance",
    default="activation",
    show_default=True,
    help="l1, l2, bn, taylor or activation: which channels matter.",
)
@click.option("--round-to", type=int, help="Outputs come in multiples of it: 8, or as --profile.")
@click.option("--uniform", is_flag=True, help="One share for all layers, no search.")
@click.option("--profile", help="Search by the latency predicted for this device profile.")
@click.option("--scheme", default="fp32", show_default=True, help="That --profile predicts for.")
@click.option(
    "--separate", is_flag=True, help="Each width gets weights of its own: better, not shared."
)
@click.option("--norms", is_flag=True, help="Narrow what LayerNorm normalises too; then train.")
@click.option("--labels/--no-labels", default=True, show_default=True, help="Train on labels.")
@click.option("--epochs", type=int, help="Instead of the task's own number; 0 only repairs.")
@click.option("--learning-rate", type=float, help="Instead of the task's own.")
@click.option(
    "--bfloat16", is_flag=True, help="Train with bfloat16 products: faster where hardware has them."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@with_output
def slim(out: Output, /, task: str, widths: str, **options: Any) -> None:
    """Find channel groups, sort, search, repair, train, write."""
    needs("torch")
    from converters.loading import load_task
    from converters.slim.run import slim as run

    settings = _settings(widths, options)
    with out.progress("slim", None) as bar:

        def report(progress: Progress) -> None:
            scores = "  ".join(f"{w}: {a * 100:.2f} %" for w, a in progress.accuracy.items())
            out.line(
                f"epoch {progress.number:3d}/{progress.epochs}  loss {progress.loss:.4f}  "
                f"{scores}  {progress.seconds:.1f} s"
            )

        found = run(
            load_task(task),
            options["out"],
            settings=settings,
            weights=options["weights"],
            resume=options["resume"],
            report=report,
            progress=bar.step,
        )
    _show(out, found)
    out.result(_data(found))
    out.next_step(
        f"edge model convert {task} --slim {found.path}",
        f"edge model fit {task} --slim {found.path} --profile rpi4",
    )


def slim_reference(task: str, path: Path | None, weights: Path | None) -> str:
    """A task's reference with the widths of ``slim.json``, as loading understands it.

    Raises:
        UsageError: ``usage.slim-weights``.
    """
    from converters.loading import SLIM_MARK

    if path is None:
        return task
    if weights is not None:
        raise UsageError(
            "slim-weights",
            "--slim brings the weights of every width; --weights would replace them.",
            "Leave --weights out, or run edge model slim with those weights.",
        )
    return f"{task}{SLIM_MARK}{path.absolute()}"


def convert_widths(
    out: Output, task: str, profiles: Sequence[str], folder: Path, options: dict[str, Any]
) -> None:
    """Convert every width of a ``slim.json``: all operating points, without a budget.

    Raises:
        EdgeError: as ``edge model fit``.
    """
    from converters.fit.estimate import Choices
    from converters.fit.result import fit_data
    from converters.fit.run import FitOptions, fit
    from edge_sdk.cli.model_fit import show
    from edge_sdk.cli.model_options import cache_from, sizes

    if options["fold_preprocess"] or options["formats"]:
        raise UsageError(
            "slim-options",
            "--slim converts for the profiles' runtimes; it takes neither --format nor "
            "--fold-preprocess.",
            "Choose with --runtime, or leave these options out.",
        )
    chosen = FitOptions(
        choices=Choices(
            schemes=listed(options["schemes"]),
            runtimes=(options["runtime"],) if options["runtime"] else (),
        ),
        resolutions=sizes(options["resolutions"]),
        force=options["force"],
    )
    reference = slim_reference(task, options["slim"], options["weights"])
    with out.progress("convert", None) as bar:
        found = fit(
            reference,
            profiles,
            folder,
            options=chosen,
            cache=cache_from(options),
            progress=bar.step,
        )
    show(out, found)
    out.result(fit_data(found) | {"folder": str(folder)})
    out.next_step(
        f"open {folder / 'report.html'}",
        f"edge release create {folder} -o {folder}-release --name NAME --version 1",
    )


def _settings(widths: str, options: dict[str, Any]) -> Settings:
    from converters.slim.settings import Settings

    try:
        shares = tuple(float(part) for part in listed(widths))
    except ValueError:
        raise UsageError(
            "bad-number", f"--widths {widths} is no list of numbers.", "Write e.g. 1.0,0.5."
        ) from None
    names = ("importance", "round_to", "uniform", "separate", "norms", "labels", "epochs")
    others = ("learning_rate", "bfloat16", "seed", "profile", "scheme")
    return Settings(widths=shares, **{name: options[name] for name in (*names, *others)}).checked()


def _show(out: Output, found: Slimmed) -> None:
    full = found.slim.widths[0].macs
    rows = [
        (
            f"{width.width:g}",
            f"{width.macs / 1e6:.2f}",
            f"{(width.macs / full - 1) * 100:+.0f} %",
            f"{found.repaired[f'{width.width:g}'] * 100:.2f}",
            f"{width.accuracy * 100:.2f}",
        )
        for width in found.slim.widths
    ]
    columns = ("width", "M MACs", "", "repaired %", "accuracy %")
    out.table(f"{len(found.slim.groups)} groups of channels", columns, rows)
    if found.held:
        kept = [(item.name or "-", str(item.channels or "-"), item.reason) for item in found.held]
        out.table("Stay whole", ("layer", "channels", "why"), kept)
    out.line(f"{found.path}, weights {found.weights.name}")


def _data(found: Slimmed) -> dict[str, Any]:
    import msgspec

    document = msgspec.to_builtins(found.slim)
    return {
        "slim": str(found.path),
        "weights": str(found.weights),
        "repaired": found.repaired,
        "widths": document["widths"],
        "groups": [
            {"name": g.name, "channels": len(g.places[0].positions)} for g in found.slim.groups
        ],
        "held": document["held"],
        "epochs": [
            {"number": p.number, "loss": p.loss, "accuracy": p.accuracy} for p in found.history
        ],
    }
