"""``edge audio``: networks that listen."""

from __future__ import annotations

import click

from edge_sdk.cli.audio_wakeword import wakeword


@click.group(name="audio", help="Networks that listen: wake words.")
def command() -> None:
    """The noun."""


command.add_command(wakeword)
