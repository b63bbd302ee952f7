"""``edge model distill``: a small student learns from a large teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.distill.run import Distilled, Progress


@click.command(help="Train the student TASK (path.py:Class) on a teacher's answers.")
@click.argument("task")
@click.option(
    "-t", "--teacher", required=True, metavar="TASK[:WEIGHTS]", help="path.py:Class[:weights.pt]"
)
@click.option("-w", "--weights", type=click.Path(path_type=Path), help="Of the student, to start.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("student.pt"), show_default=True
)
@click.option("--loss", "losses", default="logit", show_default=True, help="logit,feature,mask")
@click.option(
    "--features",
    multiple=True,
    metavar="STUDENT=TEACHER",
    help="Layers to compare; repeatable. Matched by shape without it.",
)
@click.option("--temperature", default=4.0, show_default=True, help="Softens --loss logit.")
@click.option("--hard", default=0.3, show_default=True, help="Share of the labels, 0..1.")
@click.option("--epochs", type=int, help="Instead of the task's own number.")
@click.option("--seed", default=0, show_default=True)
@click.option("--learning-rate", type=float, help="Instead of the task's own.")
@click.option(
    "--alone/--no-alone",
    default=True,
    show_default=True,
    help="Also train without the teacher, for comparison.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@with_output
def distill(out: Output, /, task: str, teacher: str, **options: Any) -> None:
    """Train, checkpoint each epoch, compare, write the weights."""
    from edge_sdk.cli.model_options import needs

    needs("torch")
    from converters.distill.run import CHECKPOINT_SUFFIX
    from converters.distill.run import distill as run
    from converters.distill.settings import Settings
    from converters.loading import load_task
    from converters.module import save_weights
    from edge_sdk.durable import DiskStorage

    path: Path = options["out"]
    checkpoint = path.with_name(path.name + CHECKPOINT_SUFFIX)
    losses = tuple(part.strip() for part in options["losses"].split(",") if part.strip())
    settings = Settings(
        losses=losses,
        temperature=options["temperature"],
        hard=options["hard"],
        features=options["features"],
        epochs=options["epochs"],
        seed=options["seed"],
        learning_rate=options["learning_rate"],
        alone=options["alone"],
    )
    _refuse_output(path, teacher)
    doubts: list[str] = []

    def warn(text: str) -> None:
        doubts.append(text)
        out.line(text, "yellow")

    with out.progress("distill", None) as bar, _kept(out, checkpoint):

        def report(progress: Progress) -> None:
            bar.step(f"{progress.stage} {progress.number}, {progress.accuracy:.4f}")
            out.line(
                f"{progress.stage:9} epoch {progress.number:3d}/{progress.epochs}  "
                f"loss {progress.loss:.4f}  held-out {progress.accuracy * 100:6.2f} %  "
                f"{progress.seconds:.1f} s"
            )

        found = run(
            load_task(task),
            teacher,
            settings=settings,
            checkpoint=checkpoint,
            weights=options["weights"],
            resume=options["resume"],
            report=report,
            warn=warn,
        )
    size = save_weights(found.student, path)
    DiskStorage().remove(checkpoint)
    _show(out, found)
    out.line(f"{path}: {size / 1024:.0f} KiB")
    out.result(_data(found, path) | {"doubts": doubts})
    out.next_step(f"edge model convert {task} --weights {path}")


def _refuse_output(path: Path, teacher: str) -> None:
    """Refuse an output that cannot be written, or whose place is taken by the teacher."""
    from converters.distill.teacher import split_reference

    _, weights = split_reference(teacher)
    if path.is_dir():
        raise UsageError("bad-output", f"{path} is a folder.", "Give a file, e.g. -o student.pt.")
    if weights is not None and weights.exists() and path.exists() and path.samefile(weights):
        raise UsageError(
            "bad-output",
            f"{path} has the teacher's weights, which the student's would replace.",
            "Give another file with -o.",
        )


@contextmanager
def _kept(out: Output, checkpoint: Path) -> Iterator[None]:
    """After Ctrl-C, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint.is_file():
            out.status(f"{checkpoint} is kept: the same command with --resume goes on.")
        raise


def _show(out: Output, found: Distilled) -> None:
    rows = [("teacher", f"{found.teacher * 100:.2f}")]
    if found.alone is not None:
        rows.append(("student alone", f"{found.alone * 100:.2f}"))
    rows.append(("student distilled", f"{found.distilled * 100:.2f}"))
    out.table("Held-out set", ("network", f"{found.measure} %"), rows)
    for pair in found.pairs:
        out.line(f"features: {pair.student} learned from the teacher's {pair.teacher}")


def _data(found: Distilled, path: Path) -> dict[str, Any]:
    return {
        "weights": str(path),
        "measure": found.measure,
        "teacher": found.teacher,
        "alone": found.alone,
        "distilled": found.distilled,
        "accuracy": found.accuracy,
        "features": [[pair.student, pair.teacher] for pair in found.pairs],
        "epochs": [
            {"stage": p.stage, "number": p.number, "loss": p.loss, "accuracy": p.accuracy}
            for p in found.history
        ],
    }
