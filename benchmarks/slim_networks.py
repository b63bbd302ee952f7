"""The networks that ``benchmarks/slim.py`` trains side by side."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MACS_SHARE = 0.42
CONTROL, OURS, UNIFORM, PEER = 0.99, 0.5, 0.49, 0.48
"""Keys of the networks that are trained side by side; they are no widths."""
NAMES = {
    CONTROL: "unpruned, same training",
    OURS: "slim",
    UNIFORM: "slim, uniform widths",
    PEER: "Torch-Pruning",
}

Say = Callable[[str], None]


class Bench:
    """The networks of one comparison, trained side by side."""

    def __init__(
        self, task: Any, weights: Path, epochs: int, rate: float, say: Say, *, peers: bool
    ) -> None:
        from converters.module import build_module, check_examples
        from converters.slim.network import SlimNetwork
        from converters.slim.plan import plan
        from converters.slim.repair import compensate, repair
        from converters.slim.samples import sample_batches
        from converters.slim.settings import Settings
        from converters.slim.statistics import second_moments

        self._task, self._epochs, self._say = task, epochs, say
        original = build_module(task, weights)
        self._example = check_examples(task, original, *task.resolutions[0])
        self.samples = sample_batches(task, 1024, training=True)
        share = _share(original, self._example)
        self._settings = Settings(
            widths=(1.0, share),
            separate=True,
            epochs=epochs,
            learning_rate=rate,
            hard=0.3,
            round_to=vector_channels(),
            bfloat16="avx512_bf16" in processor_features(),
        )
        planned = plan(task, original, self._example, self.samples, self._settings, progress=say)
        self._layers, self.module = planned.layers, planned.module
        self.groups, self.kept = planned.analysis.groups, planned.kept[share]
        flat = _uniform(planned)
        counts: dict[float, dict[str, int]] = {CONTROL: {}, OURS: self.kept}
        counts |= {UNIFORM: flat} if peers else {}
        self._network = SlimNetwork(self.module, self.groups, counts, shared=False)
        moments = second_moments(self.module, self.groups, self.samples)
        for key in list(counts)[1:]:
            small = self._network.at(key)
            compensate(self.module, small, self.groups, counts[key], moments)
            repair(self.module, small, self.groups, counts[key], self.samples)
        self._counts = counts
        peer, self.peer = None, "skipped: --bare"
        if peers:
            peer, self.peer = torch_pruning(original, self.samples)
        if peer is not None:
            self._network.narrower[PEER] = peer
        self._full = copy.deepcopy(original)

    def scores(self) -> dict[str, float]:
        """PyTorch's accuracy of each network."""
        from converters.data import evaluation_set
        from converters.train import accuracy_on

        held_out = evaluation_set(self._task, *self._task.resolutions[0])
        return {
            NAMES[key]: accuracy_on(self._task, module, held_out)
            for key, module in self.modules().items()
        }

    def modules(self) -> dict[float, Any]:
        """All but the full network as it came."""
        return self._network.narrower

    def train(self) -> None:
        """The same extra training for all."""
        from converters.slim.training import Trainer

        trainer = Trainer(self._task, self._network, self._settings, self.samples, self._full)
        for number in range(1, self._epochs + 1):
            started = time.monotonic()
            loss = trainer.epoch(number, self._epochs)
            scores = "  ".join(f"{name} {score:.4f}" for name, score in self.scores().items())
            seconds = time.monotonic() - started
            self._say(f"epoch {number}/{self._epochs} loss {loss:.4f}  {scores}  {seconds:.0f} s")
        for module in self.modules().values():
            module.requires_grad_(False)

    def macs(self) -> dict[str, float]:
        """Multiply-accumulates by name, as a share of the full network's."""
        full = counted_macs(self.module, self._example)
        return {
            NAMES[key]: counted_macs(module, self._example) / full
            for key, module in self.modules().items()
        }

    def convert(self, module: Any, folder: Path) -> tuple[Path, Path]:
        """float32 and int8 ONNX files."""
        from converters.data import calibration_set
        from converters.inspect import inspect_model
        from converters.module import contiguous
        from converters.onnx_export import export_onnx
        from converters.onnx_quantize import quantize_onnx
        from converters.settings import DEFAULTS
        from converters.wiring import named_feeds

        folder.mkdir(parents=True)
        plain, int8 = folder / "fp32.onnx", folder / "int8.onnx"
        export_onnx(contiguous(module.eval()), self._example, plain)
        samples = calibration_set(self._task, *self._task.resolutions[0])
        feeds = named_feeds(samples, inspect_model(plain).inputs, "onnx")
        quantize_onnx(plain, "static_wi8_ai8", feeds, int8, DEFAULTS)
        return plain, int8


def vector_channels() -> int:
    """float32 channels that one vector of this processor holds, at least 8."""
    return 16 if "avx512f" in processor_features() else 8


def processor_features() -> frozenset[str]:
    """As Linux names them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").split())


def _share(module: Any, example: Any) -> float:
    """The share of channels that leaves :data:`MACS_SHARE` of the multiply-accumulates."""
    from converters.slim.costs import Layers
    from converters.slim.find import analyse
    from converters.slim.groups import shapes_of
    from converters.slim.narrow import tensors_of

    found = analyse(module, example)
    layers = Layers(found.uses, found.groups, shapes_of(tensors_of(module)))
    full = layers.macs({})

    def cost(share: float) -> float:
        kept = {group.name: max(1, round(group.size * share)) for group in found.groups}
        return layers.macs(kept) / full

    low, high = 0.1, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= MACS_SHARE else (low, middle)
    return low


def _uniform(planned: Any) -> dict[str, int]:
    """The widest uniform network within the same budget, in whole channels."""
    groups, full = planned.analysis.groups, planned.layers.macs({})
    best: dict[str, int] = {}
    for percent in range(10, 100):
        kept = {group.name: max(1, round(group.size * percent / 100)) for group in groups}
        if planned.layers.macs(kept) <= MACS_SHARE * full:
            best = kept
    return best


def torch_pruning(module: Any, samples: Any) -> tuple[Any, str]:
    """Torch-Pruning's network of the same cost, and its version; None and why without it."""
    try:
        import torch_pruning as tp
    except ImportError as error:
        return None, f"skipped: {error} (pip install --no-deps torch-pruning)"
    import torch

    from converters.norm_statistics import recalibrate

    example, full, best = samples[0][0][:1], counted_macs(module, (samples[0][0][:1],)), None
    heads = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
    for percent in range(10, 60):
        small = copy.deepcopy(module)
        for parameter in small.parameters():
            parameter.requires_grad_(True)  # its graph is read off autograd
        pruner = tp.pruner.MagnitudePruner(
            small,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=percent / 100,
            round_to=8,
            ignored_layers=[layer for layer in small.modules() if type(layer) is type(heads[-1])],
        )
        pruner.step()
        best = small
        if counted_macs(small, (example,)) <= MACS_SHARE * full:
            break
    best.eval().requires_grad_(False)
    recalibrate(best, samples)
    return best, str(getattr(tp, "__version__", "unknown version"))


def counted_macs(module: Any, example: Any) -> float:
    """Of one inference, counted by PyTorch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*example)
    return counter.get_total_flops() / 2
