"""Profiles for a file whose format is given, not chosen."""

from __future__ import annotations

from collections.abc import Sequence

from converters.ladder import choose_runtime
from converters.results import RUNTIME_OF
from device_profiles.loader import load_profile
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.errors import ProfileError, UsageError


def fitting_profiles(names: Sequence[str], kind: str) -> dict[str, DeviceProfile]:
    """The named profiles, all of which must run the format.

    Raises:
        ProfileError: ``profile.unknown``, ``profile.runtime-unsupported``.
        UsageError: ``usage.no-profile``.
    """
    if not names:
        raise UsageError(
            "no-profile", "No device profile was named.", "Add --profile; see: edge profile list"
        )
    profiles = {profile.id: profile for profile in map(load_profile, names)}
    for profile in profiles.values():
        choose_runtime(profile, [RUNTIME_OF[kind]])
    return profiles


def runs_format(name: str, kind: str) -> bool:
    """Whether a profile runs a format at all."""
    try:
        fitting_profiles([name], kind)
    except ProfileError:
        return False
    return True
