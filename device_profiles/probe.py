"""Finds out which board this is, from files the kernel shows; any folder can stand in for ``/``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from device_profiles.loader import load_profile, profile_ids
from edge_sdk.contracts.base import Wire
from edge_sdk.contracts.profile import DeviceProfile

_MAX_BYTES = 256 * 1024
"""No file read here is larger; a longer one is cut."""

ARM_PARTS = {
    0xD03: "cortex-a53",
    0xD05: "cortex-a55",
    0xD07: "cortex-a57",
    0xD08: "cortex-a72",
    0xD0B: "cortex-a76",
    0xD0D: "cortex-a77",
    0xD41: "cortex-a78",
    0xD42: "cortex-a78ae",
    0xD44: "cortex-x1",
    0xD46: "cortex-a510",
    0xD47: "cortex-a710",
    0xD48: "cortex-x2",
    0xD4D: "cortex-a715",
    0xD4E: "cortex-x3",
    0xD80: "cortex-a520",
    0xD81: "cortex-a720",
    0xD82: "cortex-x4",
    0xD85: "cortex-x925",
    0xD87: "cortex-a725",
}
"""Arm's part numbers (implementer 0x41), from the cores' technical reference manuals."""

_KERNEL_FEATURES = {
    "asimd": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "avx2": "avx2",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
}


class Facts(Wire, kw_only=True):
    """What the kernel says about the machine; empty or None where it says nothing."""

    device_tree_model: str = ""
    android_soc: str = ""
    machine: str = ""
    cpu: tuple[str, ...] = ()
    """Microarchitecture of each core (its marketing name on x86)."""
    cpu_features: tuple[str, ...] = ()
    max_mhz: int | None = None
    memory_mib: int | None = None
    memory_available_mib: int | None = None
    thermal_celsius: dict[str, float] = msgspec.field(default_factory=dict)
    """By name of the thermal zone."""
    has_pressure: bool = False
    """The kernel reports pressure stall information."""


class ProbeResult(Wire, kw_only=True):
    """Which profile fits this machine, and why."""

    profile: str | None
    facts: Facts
    reasons: tuple[str, ...]
    """One sentence per finding, the decisive one first."""


def probe(sysroot: Path = Path("/")) -> ProbeResult:
    """Recognise the board.

    Args:
        sysroot: root of the files to read; another folder for tests and unpacked images.
    """
    facts = read_facts(sysroot)
    profiles = [load_profile(name) for name in profile_ids()]
    profile, reason = detect(facts, profiles)
    if profile is None:
        return ProbeResult(profile=None, facts=facts, reasons=(reason,))
    return ProbeResult(
        profile=profile.id, facts=facts, reasons=(reason, *contradictions(facts, profile))
    )


def detect(facts: Facts, profiles: Iterable[DeviceProfile]) -> tuple[DeviceProfile | None, str]:
    """The profile whose detection rule fits best, and the reason.

    The device tree decides before Android's properties, and both before the machine type. Among
    device-tree rules the longest wins, so that a variant can be told from its family.
    """
    known = list(profiles)
    model = facts.device_tree_model
    named = [p for p in known if p.detect.device_tree_model]
    matching = [p for p in named if model and p.detect.device_tree_model in model]
    if matching:
        best = max(matching, key=lambda profile: len(profile.detect.device_tree_model))
        return best, f"The device tree says {model!r}."
    for profile in known:
        if facts.android_soc and profile.detect.android_soc == facts.android_soc:
            return profile, f"Android says ro.soc.model={facts.android_soc}."
    if model or facts.android_soc:
        board = model or facts.android_soc
        return None, f"No profile is known for {board!r}; write one and pass its path."
    if found := _by_machine(facts, known):
        wanted = found.detect.cpu_features
        having = f" with {', '.join(wanted)}" if wanted else ""
        return found, f"There is no device tree and the machine is {facts.machine}{having}."
    return None, f"No device tree, and no profile for machine {facts.machine or 'unknown'!r}."


def _by_machine(facts: Facts, known: Iterable[DeviceProfile]) -> DeviceProfile | None:
    """Of the profiles for this machine type and CPU the one that asks for most."""
    has = set(facts.cpu_features)
    fitting = [
        profile
        for profile in known
        if facts.machine in profile.detect.machine and has >= set(profile.detect.cpu_features)
    ]
    return max(fitting, key=lambda profile: len(profile.detect.cpu_features), default=None)


def contradictions(facts: Facts, profile: DeviceProfile) -> list[str]:
    """Where the machine is not what its profile expects."""
    found = []
    if facts.machine and facts.machine not in (profile.machine, *profile.detect.machine):
        found.append(
            f"The kernel is {facts.machine} and the profile is for {profile.machine}: its wheels "
            "do not fit."
        )
    if lacking := set(profile.detect.cpu_features) - set(facts.cpu_features):
        found.append(
            f"The CPU lacks {', '.join(sorted(lacking))}: files for {profile.id} are slow or "
            "inexact here."
        )
    smallest_mib = min(profile.memory.variants_mib)
    # Firmware and video keep a part of a board's memory from the kernel.
    if facts.memory_mib is not None and facts.memory_mib < 0.7 * smallest_mib:
        found.append(
            f"There are {facts.memory_mib} MiB of memory; the smallest variant has {smallest_mib}."
        )
    cores = sum(cluster.cores for cluster in profile.cpu)
    if 0 < len(facts.cpu) < cores and profile.family != "x86":
        found.append(f"{len(facts.cpu)} of the board's {cores} cores are online.")
    return found


def read_facts(sysroot: Path) -> Facts:
    """Everything :func:`detect` and a person want to know."""
    cpuinfo = _read(sysroot / "proc/cpuinfo")
    memory = _memory(_read(sysroot / "proc/meminfo"))
    return Facts(
        device_tree_model=_device_tree_model(sysroot),
        android_soc=_android_soc(sysroot),
        machine=_machine(sysroot, cpuinfo),
        cpu=_cores(cpuinfo),
        cpu_features=_features(cpuinfo),
        max_mhz=_max_mhz(sysroot),
        memory_mib=memory.get("MemTotal"),
        memory_available_mib=memory.get("MemAvailable"),
        thermal_celsius=_thermal(sysroot),
        has_pressure=(sysroot / "proc/pressure/cpu").is_file(),
    )


def _read(path: Path) -> str:
    """A small text file, or nothing."""
    try:
        with path.open("rb") as handle:
            return handle.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _device_tree_model(sysroot: Path) -> str:
    for place in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        if model := _read(sysroot / place).strip("\0\n "):
            return model
    return ""


def _android_soc(sysroot: Path) -> str:
    for place in ("vendor/build.prop", "system/build.prop"):
        if match := re.search(r"^ro\.soc\.model=(\S+)", _read(sysroot / place), re.MULTILINE):
            return match[1]
    return ""


def _machine(sysroot: Path, cpuinfo: str) -> str:
    """``uname -m``; of another root, what its cpuinfo implies."""
    if sysroot == Path("/"):
        return os.uname().machine
    if re.search(r"^flags\s*:.*\blm\b", cpuinfo, re.MULTILINE):
        return "x86_64"
    arm = re.search(r"^CPU architecture:\s*(\d)", cpuinfo, re.MULTILINE)
    return {"8": "aarch64", "7": "armv7l"}.get(arm[1], "") if arm else ""


def _cores(cpuinfo: str) -> tuple[str, ...]:
    """One name per core."""
    names = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*0x([0-9a-fA-F]+)", cpuinfo, re.MULTILINE)
    if parts:
        return tuple(ARM_PARTS.get(int(part, 16), f"arm part 0x{part}") for part in parts)
    return tuple(name.strip() for name in names)


def _features(cpuinfo: str) -> tuple[str, ...]:
    line = re.search(r"^(?:Features|flags)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    words = set(line[1].split()) if line else set()
    return tuple(sorted({name for word, name in _KERNEL_FEATURES.items() if word in words}))


def _max_mhz(sysroot: Path) -> int | None:
    folder = sysroot / "sys/devices/system/cpu"
    texts = [_read(path) for path in sorted(folder.glob("cpu*/cpufreq/cpuinfo_max_freq"))]
    clocks_khz = [int(text) for text in texts if text.strip().isdecimal()]
    return max(clocks_khz) // 1000 if clocks_khz else None


def _memory(meminfo: str) -> dict[str, int]:
    """MiB by field."""
    fields = re.findall(r"^(\w+):\s+(\d{1,15}) kB$", meminfo, re.MULTILINE)
    return {name: int(kib) // 1024 for name, kib in fields}


def _thermal(sysroot: Path) -> dict[str, float]:
    zones = {}
    for zone in sorted((sysroot / "sys/class/thermal").glob("thermal_zone*")):
        text = _read(zone / "temp").strip()
        if re.fullmatch(r"-?\d{1,9}", text):
            zones[_read(zone / "type").strip() or zone.name] = int(text) / 1000
    return zones
