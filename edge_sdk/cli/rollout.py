"""``edge rollout``: bring a release to the devices of a fleet."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_sdk.cli.connect import fleet_options, open_client
from edge_sdk.cli.output import Output, with_output

if TYPE_CHECKING:
    from edge_sdk.client.api import FleetClient
    from edge_sdk.contracts.fleet import RolloutInfo, RolloutMember

POLL_SECONDS = 0.3


@click.group(name="rollout")
def command() -> None:
    """Roll a release out to a fleet, watch it, take it back."""


@command.command()
@click.argument("release")
@click.argument("version")
@click.option(
    "--canary", default=0, show_default=True, type=click.IntRange(0), help="Devices that go first."
)
@click.option(
    "--max-failures",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Devices that may refuse it before the rollout ends.",
)
@click.option(
    "--rollback-on-failure", is_flag=True, help="Then take it back from devices that run it, too."
)
@click.option("--device", "devices", multiple=True, help="Only this device; repeatable.")
@click.option(
    "--trial-min-frames", default=100, show_default=True, type=click.IntRange(1), help="Of service."
)
@click.option("--trial-max-frames", default=2000, show_default=True, type=click.IntRange(1))
@click.option(
    "--trial-seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(1.0),
    help="A trial without a verdict by then is rolled back.",
)
@click.option(
    "--new-contract",
    is_flag=True,
    help="Its labels or its preprocessing differ from what runs now, and that is meant.",
)
@click.option(
    "--window",
    "windows",
    multiple=True,
    help="When it may happen, e.g. '22:00-05:00' or 'Sat,Sun 00:00-24:00', local time; repeatable.",
)
@click.option(
    "--rate-kib-s", default=0, type=click.IntRange(0), help="Each device fetches at most so fast."
)
@click.option(
    "--devices-per-hour",
    default=0,
    type=click.IntRange(0, 1_000_000),
    help="At most so many begin in an hour.",
)
@click.option("--no-wait", is_flag=True, help="Return when it has started.")
@click.option(
    "--timeout",
    "timeout_s",
    default=3600.0,
    show_default=True,
    type=click.FloatRange(0.0),
    help="Seconds to wait for its end; it goes on afterwards.",
)
@fleet_options
@with_output
def create(
    out: Output,
    release: str,
    version: str,
    canary: int,
    max_failures: int,
    rollback_on_failure: bool,
    devices: tuple[str, ...],
    trial_min_frames: int,
    trial_max_frames: int,
    trial_seconds: float,
    new_contract: bool,
    windows: tuple[str, ...],
    rate_kib_s: int,
    devices_per_hour: int,
    no_wait: bool,
    timeout_s: float,
    server: str,
    token: str,
    data: Path | None,
) -> None:
    """Roll RELEASE VERSION out, to all devices it has a ladder for unless told otherwise."""
    from edge_sdk.contracts.update import TrialPolicy

    trial = TrialPolicy(
        min_frames=trial_min_frames, max_frames=trial_max_frames, max_seconds=trial_seconds
    )
    with open_client(server, token, data) as client:
        info = client.create_rollout(
            release,
            version,
            canary=canary,
            max_failures=max_failures,
            rollback_on_failure=rollback_on_failure,
            devices=devices,
            trial=trial,
            new_contract=new_contract,
            windows=windows,
            rate_kib_s=rate_kib_s,
            devices_per_hour=devices_per_hour,
        )
        out.line(f"Rollout {info.id} of {release} {version} to {len(info.members)} devices.")
        if info.skipped:
            out.line(f"Left out, no ladder for their profile: {', '.join(info.skipped)}")
        if not no_wait:
            info = _watch(out, client, info, timeout_s)
    _show(out, info)
    if not no_wait:
        _require_done(info)


def _on_rollout(act: Callable[[FleetClient, str], RolloutInfo]) -> click.Command:
    """A command that does something with one rollout, and shows where it stands then."""

    @wraps(act, assigned=("__name__", "__doc__"))
    def run(out: Output, rollout_id: str, server: str, token: str, data: Path | None) -> None:
        with open_client(server, token, data) as client:
            _show(out, act(client, rollout_id))

    argument = click.argument("rollout_id", default="latest")
    return command.command()(argument(fleet_options(with_output(run))))


@_on_rollout
def status(client: FleetClient, rollout_id: str) -> RolloutInfo:
    """Show a rollout (the newest by default) and where each device stands."""
    return client.rollout(rollout_id)


@_on_rollout
def rollback(client: FleetClient, rollout_id: str) -> RolloutInfo:
    """Give every device of the newest rollout its previous release back.

    A device that ran nothing before keeps the release if it has committed it; an offer that is
    still open is withdrawn.
    """
    return client.rollback(rollout_id)


@_on_rollout
def abort(client: FleetClient, rollout_id: str) -> RolloutInfo:
    """Stop the running rollout; devices that run the release already keep it."""
    return client.abort(rollout_id)


@_on_rollout
def pause(client: FleetClient, rollout_id: str) -> RolloutInfo:
    """Let no further device begin with the running rollout.

    Devices that have begun to fetch the release go on to commit it or roll it back. Offers that
    nobody has begun with are recalled, and canaries promote nothing until `edge rollout resume`.
    """
    return client.pause(rollout_id)


@_on_rollout
def resume(client: FleetClient, rollout_id: str) -> RolloutInfo:
    """Go on with a paused rollout."""
    return client.resume(rollout_id)


def _watch(out: Output, client: FleetClient, info: RolloutInfo, timeout_s: float) -> RolloutInfo:
    """Poll until the rollout has ended, saying what changes; a pause costs no time."""
    from edge_sdk.contracts.fleet import ENDED
    from edge_sdk.errors import LinkError

    left_s, before = timeout_s, time.monotonic()
    paused = told = False
    seen: dict[str, str] = {}
    finished: set[str] = set()
    with out.progress("Rolling out", len(info.members)) as progress:
        while True:
            info = client.rollout(info.id)
            if info.waits and not told:
                told = True
                out.line(f"It waits. {info.waits}")
            if info.paused is not paused:
                paused = info.paused
                out.line("Paused; `edge rollout resume` goes on." if paused else "It goes on.")
            for member in info.members:
                text = _describe(member)
                if seen.get(member.device_id) != text:
                    seen[member.device_id] = text
                    out.line(f"  {member.device_id}: {text}")
                ended = member.status.value not in ("waiting", "offered")
                new = ended and member.device_id not in finished
                finished |= {member.device_id} if new else set()
                if new:
                    progress.step(text)
            if info.state in ENDED:
                return info
            now = time.monotonic()
            left_s, before = left_s - (0.0 if paused else now - before), now
            if left_s < 0:
                raise LinkError(
                    "rollout-timeout",
                    f"Rollout {info.id} has not ended after {timeout_s:.0f} s; it goes on.",
                    "See `edge rollout status`, and whether the missing devices are online.",
                )
            time.sleep(POLL_SECONDS)


def _describe(member: RolloutMember) -> str:
    """``failed: rolled back (accuracy ...)``."""
    phase = member.phase.replace("_", " ")
    parts = [member.status.value]
    if phase and phase != member.status.value:
        parts.append(phase)
    text = ": ".join(parts)
    settled = member.status.value not in ("waiting", "offered")
    return f"{text} ({member.detail})" if settled and member.detail else text


def _show(out: Output, info: RolloutInfo) -> None:
    from msgspec import to_builtins

    from edge_sdk.accounting import added, in_words, times_in_words

    state = info.state.replace("_", " ") + (", paused" if info.paused else "")
    out.line(f"Rollout {info.id}: {info.release} {info.version}, {state}")
    for line in (info.reason, _bounds(info), info.waits):
        if line:
            out.line(line)
    rows = [
        (
            member.device_id,
            member.status.value,
            member.phase.replace("_", " "),
            member.previous_version or "-",
            _received(member),
            times_in_words(member) or "-",
            member.detail,
        )
        for member in info.members
    ]
    out.table("", ("device", "status", "phase", "before", "received", "took", "detail"), rows)
    costs = in_words(added(info.members))
    if costs:
        out.line(costs)
    _warn_kept(out, info)
    out.result(to_builtins(info))
    if info.paused:
        out.next_step("edge rollout resume", "edge rollout abort")
    elif info.state.value in ("pending", "canary", "full"):
        out.next_step("edge rollout status", "edge rollout pause", "edge rollout abort")
    elif info.state.value == "done":
        out.next_step("edge device list", "edge rollout rollback")
    else:
        out.next_step("edge device list")


def _bounds(info: RolloutInfo) -> str:
    """``Windows: 22:00-05:00; 256 KiB/s a device; 60 devices an hour``."""
    parts = [f"windows: {', '.join(info.windows)}"] if info.windows else []
    parts += [f"{info.rate_kib_s} KiB/s a device"] if info.rate_kib_s else []
    parts += [f"{info.devices_per_hour} devices an hour"] if info.devices_per_hour else []
    text = "; ".join(parts)
    return text[:1].upper() + text[1:]


def _warn_kept(out: Output, info: RolloutInfo) -> None:
    kept = [member.device_id for member in info.members if member.status.value == "kept"]
    if kept:
        out.line(
            f"Warning: nothing to go back to on {', '.join(kept)}: what has been committed there "
            "goes on running. Roll another version out to replace it.",
            style="yellow",
        )


def _received(member: RolloutMember) -> str:
    if not member.bytes_total:
        return "-"
    text = f"{member.bytes_received / 1e6:.2f} of {member.bytes_total / 1e6:.2f} MB"
    return f"{text}, {member.bytes_reused / 1e6:.2f} reused" if member.bytes_reused else text


def _require_done(info: RolloutInfo) -> None:
    from edge_sdk.errors import GateError

    if info.state.value != "done":
        raise GateError(
            "rollout-failed",
            f"Rollout {info.id} of {info.release} {info.version} is "
            f"{info.state.replace('_', ' ')}: {info.reason or 'see its devices'}.",
            "Devices run what they ran before; `edge rollout status` and the event log say why.",
        )
