"""``edge release publish``: give a signed release to the fleet server."""

from __future__ import annotations

from pathlib import Path

import click

from edge_sdk.cli.connect import fleet_options, open_client
from edge_sdk.cli.output import Output, with_output


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@fleet_options
@with_output
def publish(out: Output, folder: Path, server: str, token: str, data: Path | None) -> None:
    """Publish the signed release in FOLDER. What the server has is not sent again."""
    from msgspec import to_builtins

    total = sum(1 for _ in (folder / "blobs").glob("*")) or None
    with (
        open_client(server, token, data) as client,
        out.progress("Publishing", total) as progress,
    ):
        info = client.publish_release(folder, lambda digest: progress.step(digest[:12]))
    out.line(f"Published {info.name} {info.version} ({info.size_bytes / 1e6:.1f} MB).")
    out.line(f"Profiles: {', '.join(info.profiles)}")
    out.result(to_builtins(info))
    out.next_step(f"edge rollout create {info.name} {info.version}")
