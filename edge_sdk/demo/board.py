"""A simulated board: the few /proc and /sys files the agent's sensors read.

The demo's three agents run on one machine; giving each a sensors root of its own makes what they
feel independent of each other, and lets the demo press on one of them without loading the host.
"""

from __future__ import annotations

from pathlib import Path

TOTAL_KIB = 4 * 1024 * 1024


class Board:
    """Files below ``root`` in the kernel's formats."""

    def __init__(self, root: Path, model: str) -> None:
        self.root = root
        self._write(
            "proc/meminfo", f"MemTotal: {TOTAL_KIB} kB\nMemAvailable: {TOTAL_KIB // 2} kB\n"
        )
        self._write("proc/pressure/memory", _psi(0.0))
        self._write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
        if model:
            self._write("proc/device-tree/model", f"{model}\0")
        self.press(cpu_percent=0.0)
        self.heat(celsius=45.0)

    def press(self, cpu_percent: float) -> None:
        """Let runnable tasks wait for a core this share of the time (PSI ``some``)."""
        self._write("proc/pressure/cpu", _psi(cpu_percent))

    def heat(self, celsius: float) -> None:
        """Set the processor's temperature."""
        self._write("sys/class/thermal/thermal_zone0/temp", f"{celsius * 1000:.0f}\n")

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(text)
        temporary.replace(path)


def _psi(percent: float) -> str:
    line = f"avg10={percent:.2f} avg60={percent:.2f} avg300={percent:.2f} total=0"
    return f"some {line}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
