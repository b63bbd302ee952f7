"""``edge broker``: the embedded MQTT broker, and certificates and rules for a production one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_sdk.cli.output import Output, with_output

if TYPE_CHECKING:
    from edge_sdk.brokers.authority import Authority

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)
NAME_OF_SERVER = "the fleet server"


def authority_options(function: F) -> F:
    """Add ``--data`` and ``--authority``: where the broker's authority lies."""
    for option in (
        click.option(
            "--authority",
            "named",
            type=FOLDER,
            help="The authority's folder; `broker` in --data by default.",
        ),
        click.option(
            "--data", envvar="EDGE_DATA", type=FOLDER, help="The server's data folder.  [EDGE_DATA]"
        ),
    ):
        function = option(function)
    return function


@click.group(name="broker")
def command() -> None:
    """Run the embedded MQTT broker, or set up a mosquitto for a fleet."""


@command.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=1883, show_default=True, type=click.IntRange(0, 65535), help="0: any free."
)
@with_output
def run(out: Output, host: str, port: int) -> None:
    """Run the embedded broker until Ctrl-C or SIGTERM (demos, tests, up to about fifty devices).

    It has no authentication: keep it on loopback.
    """
    from edge_sdk.server.broker import run_broker

    def ready(bound: int) -> None:
        out.status(f"Broker ready on mqtt://{host}:{bound}")

    run_broker(host, port, ready)
    out.line("Broker stopped.")
    out.result({"stopped": True})
    out.next_step("edge server run --data fleet")


@command.group()
def authority() -> None:
    """The fleet's own certificate authority for its broker."""


@authority.command()
@authority_options
@click.option("--tenant", default="edge", show_default=True, help="The fleet's topic prefix.")
@with_output
def init(out: Output, named: Path | None, data: Path | None, tenant: str) -> None:
    """Make the authority that signs the certificates of broker, server and devices."""
    from edge_sdk.brokers.authority import create_authority
    from edge_sdk.cli.credentials import find_authority
    from edge_sdk.contracts.topics import check_name

    folder = find_authority(named, data)
    create_authority(folder, check_name(tenant, "tenant"))
    out.line(f"Made an authority in {folder}; back the folder up, ca.key is secret.")
    out.result({"folder": folder, "ca": folder / "ca.pem"})
    out.next_step(f"edge broker mosquitto {_where(named, data)}--host NAME --out mosquitto")


@authority.command("list")
@authority_options
@with_output
def list_issued(out: Output, named: Path | None, data: Path | None) -> None:
    """List the certificates that the authority has issued."""
    issued = _open(named, data).issued()
    rows = [
        (
            *(_shown(each.name), each.serial[:12], f"{each.expires:%Y-%m-%d}"),
            f"{each.revoked:%Y-%m-%d}" if each.revoked else "-",
        )
        for each in issued
    ]
    out.table("", ("name", "serial", "expires", "revoked"), rows)
    out.result(
        [
            {
                "name": each.name,
                "serial": each.serial,
                "expires": each.expires.isoformat(),
                "revoked": each.revoked.isoformat() if each.revoked else None,
            }
            for each in issued
        ]
    )
    out.next_step("edge broker revoke NAME")


@authority.command()
@authority_options
@with_output
def renew(out: Output, named: Path | None, data: Path | None) -> None:
    """Issue the fleet server's own certificate anew; restart the server then."""
    from edge_sdk.brokers.layout import SERVER

    owner = _open(named, data)
    owner.issue_server()
    out.line(f"Wrote {owner.folder / 'server.pem'} and server.key.")
    out.result({"certificate": owner.folder / "server.pem"})
    out.next_step(f"edge broker revoke {SERVER} {_where(named, data)}--keep-newest")


@command.command()
@click.argument("device_id")
@authority_options
@click.option("--out", "folder", required=True, type=FOLDER, help="Folder for the three files.")
@with_output
def certificate(
    out: Output, device_id: str, named: Path | None, data: Path | None, folder: Path
) -> None:
    """Issue a certificate for DEVICE_ID, as `edge device enroll` does for a new device.

    Writes broker-ca.pem, device.pem and device.key. Earlier certificates stay in force until they
    are revoked.
    """
    from edge_sdk.cli.credentials import CERTIFICATE_NAME, KEY_NAME, write_credentials

    write_credentials(_open(named, data), device_id, folder)
    out.line(f"Issued a certificate for {device_id}: {folder / CERTIFICATE_NAME}.")
    out.line(f"Copy the files to the device; {KEY_NAME} is secret and must stay readable by its")
    out.line("agent only.")
    out.result({"device_id": device_id, "folder": folder})
    out.next_step(f"edge broker revoke {device_id} {_where(named, data)}--keep-newest")


@command.command()
@click.argument("device_id")
@authority_options
@click.option("--keep-newest", is_flag=True, help="Leave the certificate issued last in force.")
@click.option("--mosquitto", type=FOLDER, help="Folder of `edge broker mosquitto`: copy the list.")
@with_output
def revoke(
    out: Output,
    device_id: str,
    named: Path | None,
    data: Path | None,
    keep_newest: bool,
    mosquitto: Path | None,
) -> None:
    """Revoke the certificates of DEVICE_ID. The broker must be given the new list."""
    from edge_sdk.durable import DiskStorage

    owner = _open(named, data)
    count = owner.revoke(device_id, keep_newest=keep_newest)
    target = mosquitto / "crl.pem" if mosquitto else None
    if target is not None:
        DiskStorage().write(target, owner.crl_path.read_bytes())
    plural = "" if count == 1 else "s"
    out.line(f"Revoked {count} certificate{plural} of {device_id}: {owner.crl_path}.")
    if target is None:
        out.line("Copy the list to the broker's crl.pem.")
    out.line("Restart the broker: a reload refuses new connections only, and lets it go on with")
    out.line("one that stands.")
    out.result({"device_id": device_id, "revoked": count, "list": owner.crl_path, "copy": target})
    out.next_step("systemctl restart mosquitto")


@command.command()
@authority_options
@click.option(
    "--host",
    "hosts",
    required=True,
    multiple=True,
    help="DNS name or IP address by which devices reach the broker; repeatable.",
)
@click.option("--out", "folder", required=True, type=FOLDER, help="Folder to write.")
@click.option("--port", default=8883, show_default=True, type=click.IntRange(1, 65535))
@click.option("--bind", default="", help="Address to listen on; all by default.")
@click.option("--tenant", default="edge", show_default=True, help="The fleet's topic prefix.")
@click.option(
    "--devices", default=1000, show_default=True, type=click.IntRange(1), help="For the queues."
)
@click.option("--user", default="mosquitto", show_default=True, help="System user of the broker.")
@click.option("--force", is_flag=True, help="Replace an earlier configuration.")
@with_output
def mosquitto(
    out: Output,
    named: Path | None,
    data: Path | None,
    hosts: tuple[str, ...],
    folder: Path,
    port: int,
    bind: str,
    tenant: str,
    devices: int,
    user: str,
    force: bool,
) -> None:
    """Write mosquitto.conf, access rules, certificate and revocation list of a broker."""
    from edge_sdk.brokers.mosquitto import write_mosquitto
    from edge_sdk.contracts.topics import Topics

    path = write_mosquitto(
        _open(named, data),
        Topics(tenant),
        folder,
        hosts,
        port=port,
        bind=bind,
        user=user,
        devices=devices,
        force=force,
    )
    out.line(f"Wrote {path}: TLS on port {port} for {', '.join(hosts)}.")
    out.line("Devices sign in by certificate and write their own topics only.")
    out.result({"config": path, "port": port, "hosts": hosts})
    shown = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    out.next_step(
        f"chown -R {user}: {folder}",
        f"mosquitto -c {path}",
        f"edge server run --data {data or 'fleet'} --broker mqtts://{shown}:{port}",
    )


def _open(named: Path | None, data: Path | None) -> Authority:
    from edge_sdk.brokers.authority import Authority
    from edge_sdk.cli.credentials import find_authority

    return Authority(find_authority(named, data))


def _where(named: Path | None, data: Path | None) -> str:
    """The options that say where the authority lies, for the next command."""
    return f"--authority {named} " if named is not None else f"--data {data} "


def _shown(name: str) -> str:
    from edge_sdk.brokers.layout import SERVER

    return NAME_OF_SERVER if name == SERVER else name
