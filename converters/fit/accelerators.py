"""What the accelerators of a profile make of the built files.

Where the profile's runtime has no CPU to fall back on, a graph that no accelerator takes whole
does not run: a hard limit, with the layer that is in the way. Elsewhere it is a note with the cost
of the fallback. Each file is read once, however many profiles and thread counts ask.
"""

from __future__ import annotations

from dataclasses import dataclass

from converters.linting import FileLint, float_share, lint_graph, read_graph
from converters.results import Measured
from device_profiles.latency import falls_back
from device_profiles.lint import Graph, limits_for
from edge_sdk.contracts.profile import DeviceProfile
from edge_sdk.errors import ConversionError


@dataclass(frozen=True, slots=True)
class View:
    """One file on one profile."""

    blocked: str = ""
    """Why it does not run there at all; empty where it does."""
    note: str = ""
    """What each accelerator takes of it."""


class Accelerators:
    """Lints files, remembering each graph by the digest of its file."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}

    def view(self, profile: DeviceProfile, item: Measured) -> View:
        """What the accelerators of a profile make of a file."""
        alone = not falls_back(profile, item.runtime)
        if not limits_for(profile, item.format):
            return View()  # with cpu_fallback off, the loader has refused such a profile
        try:
            found = lint_graph(item.path, self._graph(item), profile)
        except ConversionError as error:
            said = f"cannot be checked against its accelerators: {error.cause}"
            return View(blocked=said) if alone else View(note=said)
        if alone and not any(one.lint.clean for one in found):
            best = min(found, key=lambda one: len(one.lint.fallback))
            return View(blocked=f"{described(best)}; nothing else runs it there")
        return View(note="; ".join(map(described, found)))

    def float_share(self, item: Measured) -> float:
        """Share of a file's multiplications that are done in floats."""
        return float_share(self._graph(item))

    def _graph(self, item: Measured) -> Graph:
        if item.digest not in self._graphs:
            self._graphs[item.digest] = read_graph(item.path)
        return self._graphs[item.digest]


def described(found: FileLint) -> str:
    """One accelerator in words, with the user's layer that is first in the way."""
    unit = f"{found.accelerator} ({found.lint.runtime})"
    if found.lint.clean:
        return f"{unit} takes all {found.nodes} operators"
    first = found.lint.findings[0]
    layer = f" in layer {first.module!r}" if first.module else ""
    where = f"{first.op}{layer}" if first.op else "the whole model"
    return (
        f"{unit} leaves {len(found.lint.fallback)} of {found.nodes} operators{_cost(found)}, first "
        f"{where}: {first.why}"
    )


def _cost(found: FileLint) -> str:
    if found.cpu is None:
        return ""
    carried = f" and {found.transfer_ms:.3f} ms of transfer" if found.transfer_ms else ""
    return f" ({found.cpu.low_ms:.2f}-{found.cpu.high_ms:.2f} ms on the CPU{carried})"
