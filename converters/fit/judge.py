"""The second judgement of candidates, on the files that were built and measured for any profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from converters.costs import LayerSize
from converters.fit.accelerators import Accelerators, View
from converters.fit.estimate import MIB, limits_of, mixed_of, prediction
from converters.fit.search import Budget, Facts, Point, Verdict, nearest, search
from converters.ladder import host_threads
from converters.results import Latency, Measured
from converters.schemes import parse_scheme
from edge_sdk.contracts.profile import DeviceProfile

Files = Mapping[tuple[float, str], Measured]
"""By width and name, ``32x32-static_wi8_ai8-litert``."""


class Judge:
    """Judges the candidates of each profile.

    Args:
        profiles: by id.
        budget: of the user.
        layers: of the module by width and resolution.
    """

    def __init__(
        self,
        profiles: Mapping[str, DeviceProfile],
        budget: Budget,
        layers: Mapping[tuple[float, str], list[LayerSize]],
    ) -> None:
        self._profiles = profiles
        self._budget = budget
        self._layers = layers
        self._accelerators = Accelerators()

    def all(self, first: Mapping[str, Verdict], measured: Files) -> dict[str, Verdict]:
        """Verdicts by profile.

        Args:
            first: on the estimates, by profile.
            measured: every file. One that a profile's prediction rejected may be there for
                another profile; then its needs are known in full.
        """
        return {
            name: self._verdict(profile, first[name], measured)
            for name, profile in self._profiles.items()
        }

    def unmeasured(self, verdicts: Mapping[str, Verdict]) -> list[Point]:
        """What is nearest for profiles that nothing fits, its memory and accuracy unknown."""
        points = []
        for verdict in verdicts.values():
            misses = [] if verdict.ladder else nearest(verdict, self._budget, most=1)
            points += [miss.facts.point for miss in misses if not miss.facts.digest]
        return points

    def _verdict(self, profile: DeviceProfile, first: Verdict, measured: Files) -> Verdict:
        points = [item.facts.point for item in first.ladder]
        points += [item.facts.point for item in first.rejected if item.kind != "limit"]
        rescued = [replace(point, scheme=mixed_of(point.scheme)) for point in points]
        built = dict.fromkeys(p for p in (*points, *rescued) if _key(p) in measured)
        candidates = [self._facts(profile, point, measured[_key(point)]) for point in built]
        second = search(candidates, limits_of(profile), self._budget)
        left = tuple(item for item in first.rejected if item.facts.point not in built)
        return Verdict(second.ladder, (*left, *second.rejected))

    def _facts(self, profile: DeviceProfile, point: Point, item: Measured) -> Facts:
        # A mixed file has taken the place of the int8 one, of which the figures remain.
        there = item.path.exists()
        view = self._accelerators.view(profile, item) if there else View()
        mixed = there and parse_scheme(item.scheme).mixed
        in_floats = self._accelerators.float_share(item) if mixed else 0.0
        return Facts(
            point=point,
            model_mib=item.size_bytes / MIB,
            latency=prediction(profile, self._layers[point.width, point.size], point, in_floats),
            memory_mib=math.ceil(item.memory_mib),  # less is noise from run to run
            accuracy_drop=round(item.accuracy_drop, 9),
            distance=item.distance,
            host_latency_ms=_timed(item, point.threads).median_ms,
            digest=item.digest,
            blocked=view.blocked,
            note=view.note,
        )


def _key(point: Point) -> tuple[float, str]:
    return point.width, f"{point.size}-{point.scheme}-{point.runtime}"


def _timed(item: Measured, threads: int) -> Latency:
    """On this host; one thread where the count was of no interest when the file was timed."""
    return item.latency.get(host_threads(threads), item.latency[1])
