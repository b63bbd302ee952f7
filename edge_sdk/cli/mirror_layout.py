"""``edge release mirror``: a release's blobs as an object store or web server will serve them."""

from __future__ import annotations

from pathlib import Path

import click

from edge_sdk.cli.output import Output, with_output


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    "target",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to lay the blobs out in; several releases may share it.",
)
@with_output
def mirror(out: Output, folder: Path, target: Path) -> None:
    """Lay out the blobs of the release in FOLDER by digest, to be uploaded to its mirror.

    Blobs that are there already are left alone.
    """
    from edge_sdk.bundle.mirror import lay_out
    from edge_sdk.bundle.release import open_release

    release = open_release(folder)
    with out.progress("Mirror", len(release.manifest.blobs)) as progress:
        added = lay_out(release, target, lambda digest: progress.step(digest[:12]))
    base = release.manifest.mirror
    out.line(f"{len(release.manifest.blobs)} blobs in {target}, {len(added)} of them new.")
    if not base:
        out.line("The release names no mirror, so devices will not look there: build it with")
        out.line("`edge release create --mirror URL`.")
    out.result({"folder": target, "mirror": base, "added": added})
    out.next_step(f"aws s3 sync {target} s3://BUCKET/PREFIX", f"edge release publish {folder}")
