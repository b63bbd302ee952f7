"""Reads device profiles: the ones shipped in ``data/``, or a TOML file given by its path."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from device_profiles.lint import FORMATS, limits_for
from device_profiles.sources import sources
from edge_sdk.contracts.base import convert_config
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.contracts.topics import check_name
from edge_sdk.errors import ConfigError, ProfileError
from edge_sdk.suggest import did_you_mean

SCHEMA = 1
MAX_BYTES = 256 * 1024
"""No profile is larger; a larger file is something else."""


def profile_ids() -> list[str]:
    """Ids of the shipped profiles, sorted."""
    folder = resources.files("device_profiles") / "data"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_profile(id_or_path: str) -> DeviceProfile:
    """A shipped profile by its id, or any profile by the path of its TOML file.

    Args:
        id_or_path: ``rpi4``, or a path (anything with a slash or ending in ``.toml``).

    Raises:
        ProfileError: ``profile.unknown``, ``profile.unreadable``, ``profile.malformed``,
            ``profile.unknown-key``, ``profile.invalid`` or ``profile.too-new``.
    """
    if "/" in id_or_path or id_or_path.endswith(".toml"):
        path = Path(id_or_path)
        return parse_profile(_read(path), str(path))
    if id_or_path not in profile_ids():
        raise ProfileError(
            "unknown",
            f"There is no device profile {id_or_path!r}.",
            f"{did_you_mean(id_or_path, profile_ids())} A file is given by its path.",
        )
    entry = resources.files("device_profiles") / "data" / f"{id_or_path}.toml"
    return parse_profile(entry.read_bytes(), f"{id_or_path}.toml")


def parse_profile(data: bytes, where: str) -> DeviceProfile:
    """A profile from the bytes of a TOML file.

    Args:
        data: UTF-8 TOML.
        where: the file's name in error messages.

    Raises:
        ProfileError: see :func:`load_profile`.
    """
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProfileError(
            "malformed",
            f"{where} is not valid TOML: {error}.",
            "Correct the line that is named; strings need quotes, tables [[double brackets]].",
        ) from error
    schema = table.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise ProfileError(
            "too-new",
            f"{where} has schema {schema}; this version reads up to {SCHEMA}.",
            "Update edge-sdk on this machine.",
        )
    try:
        profile = convert_config(table, DeviceProfile, where)
        check_name(profile.id, "profile id")
    except ConfigError as error:
        slug = "unknown-key" if error.slug == "unknown-key" else "invalid"
        raise ProfileError(slug, error.cause, error.hint) from error
    problems = list(_problems(profile))
    if problems:
        raise ProfileError(
            "invalid",
            f"{where}: {'; '.join(problems)}.",
            "Compare the file with a shipped profile: edge profile show rpi4.",
        )
    return profile


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ProfileError(
            "unreadable",
            f"Cannot read {str(path)!r}: {reason}.",
            "Check the path, or use a shipped profile: edge profile list.",
        ) from error
    if len(data) > MAX_BYTES:
        raise ProfileError(
            "unreadable",
            f"{path} is larger than {MAX_BYTES // 1024} KiB, so it is no profile.",
            "Give the path of a profile's TOML file.",
        )
    return data


def _problems(profile: DeviceProfile) -> Iterator[str]:
    """What the types cannot say about a profile that makes sense."""
    if not profile.cpu:
        yield "cpu is empty"
    if not profile.memory.variants_mib:
        yield "memory.variants_mib is empty"
    if not profile.runtimes:
        yield "runtimes is empty"
    cores = sum(cluster.cores for cluster in profile.cpu)
    if profile.default_threads > max(cores, 1):
        yield f"default_threads is {profile.default_threads} on {cores} cores"
    thermal = profile.thermal
    if thermal and thermal.critical_celsius < thermal.throttle_celsius:
        yield "thermal.critical_celsius is below thermal.throttle_celsius"
    if not all(math.isfinite(number) for number in _floats(msgspec.to_builtins(profile))):
        yield "a number is not finite"
    for source in sources(profile):
        if not source.text.strip() and source.key != "cpu_source":
            yield f"{source.key} is empty"
    for support in profile.runtimes:
        if not support.cpu_fallback and not limits_for(profile, FORMATS[support.name]):
            yield f"{support.name} has no cpu_fallback and no accelerator lists what it takes"
    seen = set()
    for row in profile.cost:
        if row.unit == "cpu" and row.threads > cores:
            yield f"a cost row has {row.threads} threads on {cores} cores"
        if row.power_mode and row.power_mode not in profile.power_modes:
            yield f"a cost row's power_mode {row.power_mode!r} is not in power_modes"
        key = (row.runtime, row.precision, row.unit, row.threads, row.power_mode)
        if key in seen:
            yield f"two cost rows for {' '.join(map(str, key)).strip()}"
        seen.add(key)


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _floats(item)
