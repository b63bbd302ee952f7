"""What a sub-network costs, without building it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from converters.slim.costs import Cost, Layers, latency_cost
from converters.slim.groups import shapes_of
from converters.slim.narrow import tensors_of
from converters.slim.values import LayerUse
from converters.slim.walk import Walk
from converters.supernet.network import Supernet
from converters.supernet.space import Genes
from device_profiles.loader import load_profile
from edge_sdk.errors import ProfileError

Inputs = tuple[torch.Tensor, ...]
Structure = tuple[int, tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]
"""Resolution, depths, kernels."""


class Costs:
    """Costs of the sub-networks of a module.

    Args:
        network: whose sub-networks are meant.
        examples: one sample per resolution.
    """

    def __init__(self, network: Supernet, examples: Sequence[Inputs]) -> None:
        self._network = network
        self._shapes = shapes_of(tensors_of(network.module))
        self._uses = [_uses(network, example) for example in examples]
        self._layers: dict[Structure, Layers] = {}
        self._names = {
            name: [child for child, _ in network.module.get_submodule(name).named_children()]
            for name in network.depths(network.space.full)
        }

    def macs(self, genes: Genes) -> float:
        """Multiply-accumulates of the layers with weights."""
        return self.layers(genes).macs(self._network.kept(genes))

    def layers(self, genes: Genes) -> Layers:
        """The layers at a sub-network's depth, kernels and resolution."""
        structure = self.structure(genes)
        if structure not in self._layers:
            size, depths, kernels = structure
            shapes = dict(self._shapes)
            for name, side in kernels:
                full = shapes[f"{name}.weight"]
                shapes[f"{name}.weight"] = (*full[:2], side, side)
            sides = {f"{name}.weight": side * side for name, side in kernels}
            gone = tuple(f"{s}.{child}." for s, n in depths for child in self._names[s][n:])
            uses = [
                replace(use, kernel=sides.get(use.weight, use.kernel))
                for use in self._uses[size]
                if not use.weight.startswith(gone or ("\0",))
            ]
            self._layers[structure] = Layers(uses, self._network.groups, shapes)
        return self._layers[structure]

    def latency(self, profile: str, scheme: str) -> Callable[[Genes], float]:
        """Predicted milliseconds on a profile, a shipped one or a calibrated file.

        Raises:
            ProfileError: ``profile.uncalibrated-for-slim`` and those of loading a profile.
        """
        device = load_profile(profile)
        full = self.layers(self._network.space.full)
        runtimes = [
            support.name
            for support in device.runtimes
            if latency_cost(full, device, runtime=support.name, scheme=scheme) is not None
        ]
        if not runtimes:
            raise ProfileError(
                "uncalibrated-for-slim",
                f"{device.id} has no latency row for {scheme}.",
                "Choose another --scheme, or calibrate the profile: edge profile calibrate.",
            )
        known: dict[Structure, Cost] = {}

        def cost(genes: Genes) -> float:
            structure = self.structure(genes)
            if structure not in known:
                found = latency_cost(self.layers(genes), device, runtime=runtimes[0], scheme=scheme)
                known[structure] = found if found is not None else lambda kept: float("inf")
            return known[structure](self._network.kept(genes))

        return cost

    def structure(self, genes: Genes) -> Structure:
        """All of a sub-network but its widths."""
        network = self._network
        depths = tuple(network.depths(genes).items())
        return network.resolution(genes), depths, tuple(network.kernels(genes).items())


def _uses(network: Supernet, example: Inputs) -> list[LayerUse]:
    walk = Walk(tie_parts=False)
    walk.run(network.module, example)
    return walk.uses
