"""What ``edge governor replay`` is given: a segment, a policy with changes, a ladder."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.adapt.ladder import Rung, rungs
from agent.adapt.policy import GovernorPolicy, fitted
from agent.adapt.trace import Segment, read_trace
from edge_sdk.contracts.base import Wire, convert_config, decode
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.errors import ContractError, StorageError, UsageError
from edge_sdk.suggest import did_you_mean

MAX_LADDER_BYTES = 64 * 1024 * 1024
DOCUMENTS = ("conversion.json", "manifest.json")


class Ladders(Wire, kw_only=True):
    """What a conversion and a manifest have in common."""

    ladders: dict[str, tuple[OperatingPoint, ...]]


@dataclass(frozen=True, slots=True)
class Picked:
    """A stretch of a trace that is replayed."""

    trace: Path
    segment: Segment
    which: str


def pick_segments(traces: Sequence[Path], number: int | None) -> list[Picked]:
    """The segments a person means, one per trace, the most important pipeline first.

    Raises:
        UsageError: ``usage.no-such-segment``, ``usage.traces-apart``.
        ContractError: ``contract.bad-trace``.
        StorageError: ``storage.unreadable``.
    """
    picked = [_pick(trace, number) for trace in traces]
    picked.sort(key=lambda one: -one.segment.start.priority)
    first = picked[0]
    for other in picked[1:]:
        same = other.segment.start.device_id == first.segment.start.device_id
        if not same or not _ticks(first).intersection(_ticks(other)):
            raise UsageError(
                "traces-apart",
                f"{other.trace} is not of the same device and time as {first.trace}.",
                "Give the traces that the pipelines of one device wrote together, or choose a "
                "stretch with --segment.",
            )
    return picked


def _ticks(picked: Picked) -> set[float]:
    return {tick.t for tick in picked.segment.ticks}


def _pick(trace: Path, number: int | None) -> Picked:
    segments = read_trace(trace)
    if not segments:
        raise ContractError(
            "bad-trace",
            f"{trace} holds no samples.",
            "Let the agent run for a while: it writes its trace every ten seconds.",
        )
    chosen = len(segments) if number is None else number
    if not 1 <= chosen <= len(segments):
        raise UsageError(
            "no-such-segment",
            f"{trace} has {len(segments)} segments; there is no segment {chosen}.",
            f"Give --segment a number from 1 to {len(segments)}.",
        )
    return Picked(trace, segments[chosen - 1], f"segment {chosen} of {len(segments)}")


def pictures(picked: Sequence[Picked], wanted: Path | None) -> list[Path]:
    """Where the plot of each replay goes; among several each has a file of its own."""
    if wanted is None:
        return [one.trace.with_name(one.trace.name + ".png") for one in picked]
    if len(picked) == 1:
        return [wanted]
    return [
        wanted.with_name(f"{wanted.stem}-{one.segment.start.pipeline or at}{wanted.suffix}")
        for at, one in enumerate(picked)
    ]


def resolve_policy(
    policy: GovernorPolicy, profile: str | None, changes: Sequence[str]
) -> GovernorPolicy:
    """The trace's policy with a profile's temperatures and a person's changes.

    Args:
        policy: recorded, temperatures set.
        profile: takes the place of the recorded temperatures.
        changes: ``key=value`` in TOML, keys dotted.

    Raises:
        ConfigError: as :class:`GovernorPolicy` refuses values.
        UsageError: ``usage.bad-assignment``.
        ProfileError: there is no such profile.
    """
    thermal = None
    data: dict[str, Any] = msgspec.to_builtins(policy)
    if profile is not None:
        from device_profiles.loader import load_profile

        thermal = load_profile(profile).thermal
        del data["temperature_celsius"], data["critical_celsius"]
    for change in changes:
        _merge(data, _assignment(change))
    return fitted(convert_config(data, GovernorPolicy, "--set"), thermal)


def resolve_ladder(segment: Segment, path: Path | None, profile: str | None) -> list[Rung]:
    """The recorded ladder, or that of a conversion or release for a profile.

    Raises:
        UsageError: ``usage.profile-not-in-release``.
        StorageError: ``storage.unreadable``.
        ContractError: ``contract.malformed``.
    """
    if path is None:
        return list(segment.start.ladder)
    ladders = _read(path).ladders
    wanted = profile or segment.start.profile
    points = ladders.get(wanted, ())
    if not points:
        raise UsageError(
            "profile-not-in-release",
            f"{path} has no ladder for the profile {wanted!r}.",
            did_you_mean(wanted, ladders) or f"It has {', '.join(sorted(ladders)) or 'none'}.",
        )
    return rungs(points)


def _read(path: Path) -> Ladders:
    files = [path / name for name in DOCUMENTS] if path.is_dir() else [path]
    file = next((file for file in files if file.is_file()), files[0])
    try:
        with file.open("rb") as handle:
            data = handle.read(MAX_LADDER_BYTES)
    except OSError as error:
        raise StorageError(
            "unreadable",
            f"Cannot read {file}: {error.strerror or error}.",
            "Name the folder of a conversion, a conversion.json or a manifest.json.",
        ) from error
    return decode(data, Ladders, str(file))


def _assignment(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
    key, equals, value = text.partition("=")
    try:
        # A value that a person gives without quotes may be a word: energy_saver=always.
        return tomllib.loads(f"{key} {equals} '{value.strip()}'")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            "bad-assignment",
            f"--set {text!r} is not KEY=VALUE: {error}.",
            "Write it as in the configuration, such as --set dwell_up_s=5 or "
            "--set cpu_pressure_percent.enter=30.",
        ) from error


def _merge(data: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        inner = data.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            _merge(inner, value)
        else:
            data[key] = value
