"""``edge device``: the devices of a fleet."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_sdk.cli.connect import fleet_options, open_client
from edge_sdk.cli.output import Output, with_output

if TYPE_CHECKING:
    from edge_sdk.contracts.fleet import DeviceInfo, FleetTrust
    from edge_sdk.contracts.telemetry import TelemetrySample
    from edge_sdk.server.link import BrokerAddress

OWN_FOLDERS = (
    "",
    "# Beside this file, so that several agents can run on one host. Without these two lines the",
    "# agent uses what systemd gives its unit (/var/lib/edge-agent, /run/edge-agent).",
    'state_dir = "state"',
    'runtime_dir = "run"',
)


@click.group(name="device")
def command() -> None:
    """List, show and enroll devices."""


@command.command(name="list")
@fleet_options
@with_output
def list_devices(out: Output, server: str, token: str, data: Path | None) -> None:
    """List the devices that the server knows."""
    from msgspec import to_builtins

    with open_client(server, token, data) as client:
        devices = client.devices()
    columns = ("device", "profile", "online", "version", "phase", "accuracy", "p95 ms", "seen")
    out.table("", columns, [_line(device) for device in devices])
    if not devices:
        out.line("No device is known yet.")
    out.result([to_builtins(device) for device in devices])
    first = devices[0].id if devices else ""
    out.next_step(f"edge device show {first}" if first else "edge device enroll --help")


@command.command()
@click.argument("device_id")
@fleet_options
@with_output
def show(out: Output, device_id: str, server: str, token: str, data: Path | None) -> None:
    """Show everything the server knows about one device."""
    from msgspec import to_builtins

    with open_client(server, token, data) as client:
        device = client.device(device_id)
    sample = device.telemetry
    rows: list[tuple[str, object]] = [
        ("profile", device.profile or "-"),
        ("enrolled", "yes" if device.enrolled else "no, it reported by itself"),
        ("online", "yes" if device.online else "no"),
        ("last seen", _ago(device.last_seen)),
        ("agent, runtime", f"{device.agent_version or '-'}, {device.runtime or '-'}"),
        ("runs", f"{device.release} {device.version}".strip() or "nothing"),
        ("should run", f"{device.desired_release} {device.desired_version}".strip() or "-"),
        ("update", f"{device.phase or '-'} {device.detail}".strip()),
        ("accuracy", _percent(device.accuracy)),
        ("trusts", f"TUF root {device.root_version}" if device.root_version else "pinned keys"),
    ]
    if sample is not None:
        rows += _sample_rows(sample)
    for name, value in rows:
        out.line(f"{name:>16}  {value}")
    out.result(to_builtins(device))
    out.next_step("edge rollout status")


@command.command()
@click.argument("device_id")
@click.option("--profile", required=True, help="Device profile; see `edge profile list`.")
@click.option(
    "--out",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write agent.toml and trust.json to.",
)
@click.option(
    "--release-key",
    "release_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key (PEM) that releases are signed by; repeatable.",
)
@click.option(
    "--trust",
    "trust_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A trust file to take the release keys from, or the TUF root that `edge release key "
    "init` put there.",
)
@click.option("--broker", default="", help="Broker as the device reaches it; the server's if not.")
@click.option(
    "--broker-ca",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CA (PEM) of a broker that is not under the fleet's own authority.",
)
@click.option(
    "--authority",
    "authority_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The broker's authority (`edge broker authority init`) that issues the device's "
    "certificate; the one in --data by default.",
)
@click.option("--video", default="", help="Encoded video file the pipeline reads.")
@click.option("--labels", default="", help="JSON labels of the video's frames.")
@click.option("--camera", default="0", show_default=True, help="Camera, when there is no --video.")
@click.option(
    "--system",
    is_flag=True,
    help="For a device of its own: the agent uses the folders of its systemd unit instead of ones "
    "beside agent.toml.",
)
@click.option("--force", is_flag=True, help="Replace files of an earlier enrollment.")
@fleet_options
@with_output
def enroll(
    out: Output,
    device_id: str,
    profile: str,
    folder: Path,
    release_keys: tuple[Path, ...],
    trust_file: Path | None,
    broker: str,
    broker_ca: Path | None,
    authority_folder: Path | None,
    video: str,
    labels: str,
    camera: str,
    system: bool,
    force: bool,
    server: str,
    token: str,
    data: Path | None,
) -> None:
    """Make DEVICE_ID known to the server and write the files its agent needs."""
    from device_profiles.loader import load_profile
    from edge_sdk.bundle.trust import save_trust, trust_root
    from edge_sdk.cli.credentials import broker_lines, existing_authority, write_credentials
    from edge_sdk.contracts.topics import check_name
    from edge_sdk.durable import DiskStorage
    from edge_sdk.server.link import parse_broker_url

    check_name(device_id, "device")
    profile_id = load_profile(profile).id
    metadata = _root_of(trust_file)
    keys = [] if metadata else _release_keys(release_keys, trust_file)
    _refuse_existing(folder, force)
    authority = existing_authority(authority_folder, data) if broker_ca is None else None
    with open_client(server, token, data) as client:
        fleet = client.trust()
        address = parse_broker_url(broker or fleet.broker)
        ca = broker_ca.absolute() if broker_ca else None
        tls = broker_lines(authority, ca) if address.tls else []
        client.enroll(device_id, profile_id)
    if tls and authority is not None:
        write_credentials(authority, device_id, folder)
    pinned = [] if metadata else [fleet.public_key]
    root = trust_root(keys, pinned, root=metadata)
    save_trust(root, folder / "trust.json", DiskStorage())
    source = _source(video, labels, camera)
    config = agent_config(device_id, profile_id, fleet, address, source, tls, system=system)
    DiskStorage().write(folder / "agent.toml", config.encode())
    out.line(f"Enrolled {device_id} as {profile_id}.")
    names = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
    out.line(f"Copy {names} to the device.")
    out.result({"device_id": device_id, "profile": profile_id, "folder": str(folder)})
    out.next_step(f"edge-agent run --config {folder / 'agent.toml'}")


def agent_config(
    device_id: str,
    profile: str,
    fleet: FleetTrust,
    address: BrokerAddress,
    source: dict[str, object],
    tls: Sequence[str] = (),
    *,
    system: bool,
) -> str:
    """The text of an ``agent.toml``; JSON strings are TOML strings.

    Unless ``system`` leaves them to systemd, the agent's folders are its own: several agents of
    one host must not share a state.
    """
    lines = [
        f"device_id = {json.dumps(device_id)}",
        f"tenant = {json.dumps(fleet.tenant)}",
        f"profile = {json.dumps(profile)}",
        'trust = "trust.json"',
        *([] if system else OWN_FOLDERS),
        "",
        "[broker]",
        f"host = {json.dumps(address.host)}",
        f"port = {address.port}",
    ]
    if address.username:
        lines.append(f"username = {json.dumps(address.username)}")
    lines += [*tls, "", "[pipeline.source]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in source.items()]
    return "\n".join(lines) + "\n"


def _source(video: str, labels: str, camera: str) -> dict[str, object]:
    if not video:
        return {"kind": "camera", "device": int(camera) if camera.isdecimal() else camera}
    # The agent reads paths relative to its own folder, so what is typed here is made absolute.
    # A file stands in for a camera: it goes on, at a camera's pace.
    source: dict[str, object] = {"kind": "video", "path": str(Path(video).absolute())}
    source |= {"fps": 25.0, "loop": True}
    return source | ({"labels": str(Path(labels).absolute())} if labels else {})


def _root_of(trust_file: Path | None) -> bytes:
    """The TUF root in a trust file; empty when there is none."""
    from edge_sdk.bundle.trust import load_trust

    return load_trust(trust_file).root if trust_file is not None else b""


def _release_keys(paths: tuple[Path, ...], trust_file: Path | None) -> list[bytes]:
    from edge_sdk.bundle.signing import load_public
    from edge_sdk.bundle.trust import load_trust
    from edge_sdk.errors import UsageError

    keys = [load_public(path) for path in paths]
    if trust_file is not None:
        keys += load_trust(trust_file).release_keys.values()
    if not keys:
        raise UsageError(
            "no-release-key",
            "A device must know whose releases to accept.",
            "Give the publisher's public key with --release-key, or a trust file with --trust.",
        )
    return keys


def _refuse_existing(folder: Path, force: bool) -> None:
    from edge_sdk.errors import StorageError

    found = [name for name in ("agent.toml", "trust.json") if (folder / name).exists()]
    if found and not force:
        raise StorageError(
            "file-exists",
            f"{folder / found[0]} exists already.",
            "Choose another --out, or replace it with --force.",
        )


def _line(device: DeviceInfo) -> tuple[object, ...]:
    sample = device.telemetry
    return (
        device.id,
        device.profile or "-",
        "yes" if device.online else "no",
        f"{device.release} {device.version}".strip() or "-",
        device.phase.replace("_", " ") or "-",
        _percent(device.accuracy),
        f"{sample.latency_p95_ms:.2f}" if sample and sample.frames else "-",
        _ago(device.last_seen),
    )


def _sample_rows(sample: TelemetrySample) -> list[tuple[str, object]]:
    latency = f"{sample.latency_p50_ms:.2f} / {sample.latency_p95_ms:.2f}"
    rows: list[tuple[str, object]] = [
        ("p50, p95, p99", f"{latency} / {sample.latency_p99_ms:.2f} ms"),
        ("frames", f"{sample.fps:.1f} fps, {sample.frames_dropped} dropped"),
        ("memory", f"{sample.supervisor_rss_mib:.0f} + {sample.worker_rss_mib:.0f} MiB"),
        ("cpu", f"{sample.cpu_percent:.0f} %, pressure {sample.cpu_pressure:.0f} %"),
    ]
    if sample.ladder is not None:
        place = f"{sample.ladder.index + 1} of {sample.ladder.size}: {sample.ladder.point}"
        rows.append(("operating point", f"{place} ({sample.ladder.reason})"))
    if sample.temperature_celsius is not None:
        hot = ", throttled" if sample.throttled else ""
        rows.append(("temperature", f"{sample.temperature_celsius:.0f} °C{hot}"))
    return rows


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _ago(then: float | None) -> str:
    return "never" if then is None else f"{max(time.time() - then, 0):.0f} s ago"
