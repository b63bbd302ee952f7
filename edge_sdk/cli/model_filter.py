"""``edge model filter``: an enhancer before a network that listens."""

from __future__ import annotations

from pathlib import Path

import click

from edge_sdk.cli.output import Output, with_output

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    name="filter",
    help="Let the enhancer converted in ENHANCER clean the sound before the network in FOLDER.",
)
@click.argument("folder", type=FOLDER)
@click.argument("enhancer", type=FOLDER)
@click.option("--scheme", default="", help="Of the enhancer's files; the cheapest by default.")
@with_output
def filter_sound(out: Output, /, folder: Path, enhancer: Path, scheme: str) -> None:
    """Copy the enhancer's files into the conversion and name them in it."""
    from converters.enhance.filter import add_filter

    chosen = add_filter(folder, enhancer, scheme=scheme)
    out.table(
        "Before the network",
        ("runtime", "scheme", "artifact"),
        [(one.runtime, one.scheme, one.digest[:12]) for one in chosen],
    )
    out.result({"folder": folder, "filters": {one.runtime: one.digest for one in chosen}})
    out.next_step(
        f"edge release create {folder} -o {folder}-release --name {folder.name} --version 1"
    )
