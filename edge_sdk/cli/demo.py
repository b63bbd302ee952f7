"""``edge demo``: the main job, end to end, on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from edge_sdk.demo.story import Proof

MARKER = ".edge-demo"


@click.command("demo")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/demo"),
    show_default=True,
    help="Folder for everything the demo makes; an earlier demo there is replaced.",
)
@click.option(
    "--example",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Task file of the digits example; default: the one of this clone.",
)
@with_output
def command(output: Output, out: Path, example: Path | None) -> None:
    """Train, convert, roll out, roll back and adapt, with real processes on this machine.

    Takes a few minutes. Ctrl-C ends it at any moment and leaves no process behind.
    """
    from edge_sdk.demo.story import Story
    from edge_sdk.demo.summary import tell_summary, write_report

    task_file = example or Path(__file__).parents[2] / "examples" / "digits" / "task.py"
    if not task_file.is_file():
        raise UsageError(
            "no-example",
            f"The digits example is not at {task_file}.",
            "Run the demo from a clone of the repository, or name the file with --example.",
        )
    # Relative where it can be: the commands shown are meant to be read and typed.
    folder = relative_to_here(out)
    _clear(folder)
    proof: Proof = Story(folder, relative_to_here(task_file), output).run()
    report = write_report(folder, proof)
    tell_summary(output, folder, report, proof)
    output.result({**proof.as_dict(), "folder": str(folder), "report": str(report)})
    output.next_step(
        f"edge model inspect {out}/conversions/2",
        f"edge model bench {out}/conversions/2",
        f"edge server run --data {out}/server   # the fleet's history, as the demo left it",
    )


def relative_to_here(path: Path) -> Path:
    """The path as seen from the current folder when it lies below it, else absolute."""
    full = path.absolute()
    return full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full


def _clear(folder: Path) -> None:
    """Make an empty folder, replacing nothing but an earlier demo's."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise UsageError(
            "not-a-demo-folder",
            f"{folder} holds something that no demo made.",
            "Choose another folder with --out.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
