"""``edge server``: the fleet server."""

from __future__ import annotations

from pathlib import Path

import click

from edge_sdk.cli.connect import fleet_options, open_client
from edge_sdk.cli.output import Output, with_output


@click.group(name="server")
def command() -> None:
    """Run the fleet server: releases, devices, rollouts, a web page."""


@command.command()
@click.option(
    "--data",
    required=True,
    envvar="EDGE_DATA",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the database, releases, key and token; created when missing.  [EDGE_DATA]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free."
)
@click.option(
    "--broker",
    default="mqtt://127.0.0.1:1883",
    show_default=True,
    help="mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS.",
)
@click.option(
    "--broker-password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that holds the broker password.",
)
@click.option(
    "--broker-ca",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CA certificates (PEM) the broker must be signed by. Without this and --broker-cert: the "
    "authority in the data folder, if there is one.",
)
@click.option(
    "--broker-cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificate (PEM) by which the server signs in at the broker.",
)
@click.option(
    "--broker-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key (PEM) of --broker-cert.",
)
@click.option("--tenant", default="edge", show_default=True, help="The fleet's topic prefix.")
@click.option(
    "--release-key",
    "release_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key (PEM) that releases must be signed by; repeatable. None: any signer, and "
    "only the devices check.",
)
@click.option(
    "--offline-after",
    "offline_after_s",
    default=90.0,
    show_default=True,
    type=click.FloatRange(1.0),
    help="Seconds of silence after which a device does not count as online; choose three times "
    "the agents' telemetry_interval_s, or more.",
)
@click.option(
    "--gather",
    "gather_s",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0.0, 3600.0),
    help="Seconds that devices wait for each other before a larger transfer, so that the server "
    "publishes it once for all of them; 0 for no waves.",
)
@with_output
def run(
    out: Output,
    data: Path,
    host: str,
    port: int,
    broker: str,
    broker_password_file: Path | None,
    broker_ca: Path | None,
    broker_cert: Path | None,
    broker_key: Path | None,
    tenant: str,
    release_keys: tuple[Path, ...],
    offline_after_s: float,
    gather_s: float,
) -> None:
    """Run the server until Ctrl-C or SIGTERM. It may be killed at any time and resumes."""
    import logging
    import sys

    from edge_sdk.cli.credentials import server_files
    from edge_sdk.server.link import parse_broker_url
    from edge_sdk.server.run import Ready, ServerSettings, run_server

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    files = server_files(data, broker_ca, broker_cert, broker_key)
    settings = ServerSettings(
        data=data,
        host=host,
        port=port,
        broker=parse_broker_url(broker, broker_password_file, files),
        tenant=tenant,
        release_keys=release_keys,
        offline_after_s=offline_after_s,
        gather_s=gather_s,
    )

    def ready(server: Ready) -> None:
        out.status(f"Server ready on {server.url}")
        out.status(f"Page: {server.url}/?token=$(cat {data / 'token'})")

    run_server(settings, ready)
    out.line("Server stopped.")
    out.result({"stopped": True})
    out.next_step(f"edge server run --data {data}")


@command.command()
@click.option(
    "--data",
    required=True,
    envvar="EDGE_DATA",
    type=click.Path(path_type=Path, file_okay=False),
    help="The server's data folder; created when missing.  [EDGE_DATA]",
)
@click.option(
    "--replace",
    type=click.Choice(["fleet", "snapshot", "timestamp"]),
    help="Make a new key for this role; the old one is kept beside it.",
)
@with_output
def keys(out: Output, data: Path, replace: str | None) -> None:
    """Make or replace the server's own keys while it does not run; show their public halves."""
    from edge_sdk.bundle.signing import load_public
    from edge_sdk.repository.metadata import tuf_keyid
    from edge_sdk.server.keys import locked_data, online_keys, replace_key

    with locked_data(data):
        if replace is not None:
            replace_key(data, replace)
        online_keys(data)
    paths = {role: data / f"{role}.key.pub" for role in ("fleet", "snapshot", "timestamp")}
    for role, path in paths.items():
        out.line(f"{role:>9}  {tuf_keyid(load_public(path))[:16]}  {path}")
    out.result({role: str(path) for role, path in paths.items()})
    if replace is None:
        out.next_step(f"edge release key init KEYS --server-keys {data}")
    else:
        public = paths[replace]
        out.next_step(f"edge release key rotate KEYS --role {replace} --public {public}")


@command.command()
@fleet_options
@with_output
def status(out: Output, server: str, token: str, data: Path | None) -> None:
    """Whether the server runs and reaches its broker."""
    from msgspec import to_builtins

    with open_client(server, token, data) as client:
        health, trust, metadata = client.health(), client.trust(), client.metadata_versions()
    word = "connected" if health.broker_connected else "unreachable"
    out.line(f"Server {client.url}, edge-sdk {health.version}")
    out.line(f"Broker {trust.broker}: {word}")
    if health.broker_report:
        out.line(f"       {health.broker_report}")
    out.line(f"Tenant {trust.tenant}, fleet key {trust.keyid}")
    if metadata.root:
        out.line(
            f"TUF root {metadata.root}, targets {metadata.targets}, snapshot {metadata.snapshot},"
            f" timestamp {metadata.timestamp}"
        )
    else:
        out.line("No TUF metadata: devices go by pinned keys")
    out.result(
        {
            "health": to_builtins(health),
            "trust": to_builtins(trust),
            "metadata": to_builtins(metadata),
            "url": client.url,
        }
    )
    out.next_step("edge device list", "edge rollout status")
