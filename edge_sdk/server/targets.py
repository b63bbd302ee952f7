"""Which devices a rollout reaches, and what each would go back to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa

from edge_sdk.contracts.fleet import DeviceInfo, RolloutRequest
from edge_sdk.contracts.update import Phase
from edge_sdk.errors import UsageError
from edge_sdk.server import records, rollout_records
from edge_sdk.server.db.schema import releases
from edge_sdk.suggest import did_you_mean

_REFUSALS = (Phase.ROLLED_BACK, Phase.REJECTED)


def choose_devices(
    connection: sa.Connection,
    request: RolloutRequest,
    profiles: Sequence[str],
    heard_since: float,
) -> tuple[list[DeviceInfo], list[str]]:
    """``(devices, skipped ids)``: those asked for, or all that the release has a ladder for.

    Without a list, devices that are online (and were heard of after ``heard_since``) come first,
    so that canaries can answer.

    Raises:
        UsageError: ``usage.unknown-device``, ``usage.profile-not-in-release`` or
            ``usage.no-devices``.
    """
    known = {device.id: device for device in records.device_infos(connection, heard_since)}
    if request.devices:
        return _named(request.devices, known, profiles), []
    fitting = [device for device in known.values() if device.profile in profiles]
    if not fitting:
        raise UsageError(
            "no-devices",
            f"None of the {len(known)} known devices has a profile of this release "
            f"({', '.join(profiles)}).",
            "Enroll a device (`edge device enroll`), or convert the model for its profile.",
        )
    skipped = sorted(known.keys() - {device.id for device in fitting})
    return sorted(fitting, key=lambda device: (not device.online, device.id)), skipped


def _named(
    names: Sequence[str], known: dict[str, DeviceInfo], profiles: Sequence[str]
) -> list[DeviceInfo]:
    chosen = []
    for name in dict.fromkeys(names):
        device = known.get(name)
        if device is None:
            raise UsageError(
                "unknown-device",
                f"There is no device {name!r} on this server.",
                did_you_mean(name, known),
            )
        if device.profile not in profiles:
            raise UsageError(
                "profile-not-in-release",
                f"The release has no ladder for {name}, a {device.profile or 'unknown profile'!r}.",
                f"It was converted for: {', '.join(profiles)}.",
            )
        chosen.append(device)
    return chosen


def previous_release(connection: sa.Connection, device: DeviceInfo) -> int | None:
    """Row id of the release that the device should go back to; None when it runs nothing known.

    What it was last told counts. Only where it has answered that with a refusal, having fallen
    back by itself, its own word counts; its twin may still name the refused release for a moment.
    """
    last = records.desired_row(connection, device.id)
    running = records.release_by(
        connection, releases.c.name == device.release, releases.c.version == device.version
    )
    running_id = running["id"] if running is not None else None
    if last is None:
        return running_id
    if last["release_id"] is None and device.phase == Phase.COMMITTED:
        return running_id  # it had committed before it heard that the offer was withdrawn
    if device.deployment != last["deployment"] or device.phase not in _REFUSALS:
        return cast("int | None", last["release_id"])
    if running_id != last["release_id"]:
        return running_id
    return rollout_records.previous_in(connection, last["deployment"], device.id)
