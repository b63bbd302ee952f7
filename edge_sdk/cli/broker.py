"""``edge broker``: the embedded MQTT broker."""

from __future__ import annotations

import click

from edge_sdk.cli.output import Output, with_output


@click.group(name="broker")
def command() -> None:
    """Run the embedded MQTT broker (demos, tests, up to about fifty devices)."""


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=1883, show_default=True, type=click.IntRange(0, 65535), help="0: any free."
)
@with_output
def run(out: Output, host: str, port: int) -> None:
    """Run the broker until Ctrl-C or SIGTERM. It has no authentication: keep it on loopback."""
    from edge_sdk.server.broker import run_broker

    def ready(bound: int) -> None:
        out.status(f"Broker ready on mqtt://{host}:{bound}")

    run_broker(host, port, ready)
    out.line("Broker stopped.")
    out.result({"stopped": True})
    out.next_step("edge server run --data fleet")
