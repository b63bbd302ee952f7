"""The ``/proc`` and ``/sys`` files of a board, written into a folder."""

from __future__ import annotations

from pathlib import Path


def write_sysroot(
    root: Path,
    *,
    model: str = "",
    part: int | None = None,
    cores: int = 4,
    mhz: int = 1800,
    memory_mib: int = 3800,
    features: str = "fp asimd evtstrm crc32 cpuid",
    architecture: int = 8,
    android_soc: str = "",
    thermal_millicelsius: int | None = 48200,
) -> Path:
    """What an Arm board's kernel shows; a missing device tree when ``model`` is empty."""
    block = (
        "processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n"
        "CPU implementer\t: 0x41\nCPU architecture: {architecture}\nCPU variant\t: 0x0\n"
        "CPU part\t: 0x{part:03x}\nCPU revision\t: 3\n\n"
    )
    if part is not None:
        blocks = [
            block.format(n=n, features=features, architecture=architecture, part=part)
            for n in range(cores)
        ]
        _write(root / "proc/cpuinfo", "".join(blocks) + f"Model\t\t: {model}\n")
    if model:
        _write(root / "proc/device-tree/model", model + "\0")
    if android_soc:
        _write(root / "vendor/build.prop", f"ro.a=b\nro.soc.model={android_soc}\n")
    _write(
        root / "proc/meminfo",
        f"MemTotal:       {memory_mib * 1024} kB\nMemAvailable:   {memory_mib * 512} kB\n",
    )
    for n in range(cores):
        folder = root / f"sys/devices/system/cpu/cpu{n}/cpufreq"
        _write(folder / "cpuinfo_max_freq", f"{mhz * 1000}\n")
    if thermal_millicelsius is not None:
        zone = root / "sys/class/thermal/thermal_zone0"
        _write(zone / "temp", f"{thermal_millicelsius}\n")
        _write(zone / "type", "cpu-thermal\n")
    return root


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
