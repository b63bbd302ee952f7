"""Bar: a supernet search against uniform widths, and against training every candidate.

For two profiles the budget is what the network's uniform half width is predicted to take there.
The sub-network that the search finds, as it is, without any training of its own, is compared with
that uniform width trained by itself from scratch for the task's epochs. That is the bar, because
the cost of training the candidates separately counts those epochs. Beside it stand the same width
trained for as many epochs as the supernet was in all, and as the supernet has it. A control
searches at equal multiply-accumulates instead. Accuracy is that on held-out samples which the
search never looked at.

Costs are processor seconds. What a candidate costs to train separately is measured: the networks
above are trained for real, and the mean is taken times the number of candidates.

    nice python benchmarks/supernet.py [--quick] [--seed N] [--json] [--check]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, this folder comes first on the path, where converters.py hides the package.
OWN = ROOT / "benchmarks"
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != OWN)]

TASKS = ROOT / "benchmarks" / "supernet_task.py"
PROFILES = ("rpi4", "snapdragon-8-gen3")
SCHEME = "fp32"
UNIFORM = 0.5
CONTROL = "same MMACs"
"""Beside the profiles: the budget is multiply-accumulates. A profile's fixed cost per layer makes
few wide layers cheap; here that advantage is gone."""
LEAST_RATIO = 15.0
RUNS = 200


@dataclass(frozen=True)
class Row:
    """One network."""

    profile: str
    network: str
    predicted_ms: float | None
    host_ms: float
    """ONNX Runtime on this machine, one thread."""
    macs: float
    accuracy: float
    """Without training of its own, inside the supernet."""
    alone: float | None
    """Of the same architecture trained from scratch for the task's epochs; not for the control."""
    longer: float | None
    """Of the uniform width trained for as many epochs as the supernet was in all."""
    structure: str


@dataclass(frozen=True)
class Result:
    """Everything that was measured."""

    space: int
    candidates: int
    held_out: int
    rows: tuple[Row, ...]
    training_seconds: float
    search_seconds: float
    alone_seconds: tuple[float, ...]
    """To train a candidate by itself, each measured."""

    @property
    def separate_seconds(self) -> float:
        """To train all candidates."""
        return statistics.mean(self.alone_seconds) * self.candidates

    @property
    def ratio(self) -> float:
        """How many times more that is than the supernet and its search."""
        return self.separate_seconds / (self.training_seconds + self.search_seconds)

    def gain(self, profile: str) -> float:
        """Of the found network over the uniform width trained alone for the task's epochs."""
        found, uniform = (row for row in self.rows if row.profile == profile)
        return found.accuracy - (uniform.alone or 0.0)

    def harder_gain(self, profile: str) -> float:
        """Over the uniform width trained alone, however long."""
        found, uniform = (row for row in self.rows if row.profile == profile)
        return found.accuracy - max(uniform.alone or 0.0, uniform.longer or 0.0)

    @property
    def passes(self) -> bool:
        """Whether the bars are met."""
        return self.ratio >= LEAST_RATIO and all(self.gain(name) >= 0 for name in PROFILES)


def measure(ref: str, seed: int, candidates: int) -> Result:
    """Train, search, train the networks of the comparison alone."""
    from converters.loading import load_task
    from converters.supernet.run import Bench, Target
    from converters.supernet.search import Effort, search

    task = load_task(ref)
    bench = Bench(task, None, seed)
    spent: list[float] = []

    def report(epoch: Any) -> None:
        spent.append(epoch.loss)
        say(f"{epoch.phase} {epoch.number}/{epoch.epochs}: loss {epoch.loss:.3f}")

    space = bench.network.space
    uniform = space.uniform(UNIFORM)
    costs = {name: bench.costs.latency(name, SCHEME) for name in PROFILES}
    targets = [Target(name, costs[name](uniform), SCHEME) for name in PROFILES]
    bench.train(targets, report=report)
    effort = Effort(candidates=candidates, seed=seed)
    chosen = {target.profile: item.genes for target, item in bench.search(targets, effort).items()}
    for name, genes in chosen.items():
        size = bench.network.resolution(genes)
        accuracy = bench.judge.reported(bench.judge.module(genes), size)
        say(f"{name}: found {structure(bench, genes)}, {accuracy:.4f}")
    bill = bench.bill()
    costs[CONTROL] = bench.costs.macs
    control = search(
        space, bench.costs.macs, bench.judge.quality, bench.costs.macs(uniform), effort, [uniform]
    )
    if control is not None:  # the uniform width fits, so there is one
        chosen[CONTROL] = control.genes
    alone: dict[tuple[int, ...], tuple[float, float]] = {}
    for genes in (uniform, *(chosen[name] for name in PROFILES)):
        if genes not in alone:
            say(f"train {structure(bench, genes)} alone")
            alone[genes] = train_alone(bench, genes, seed, task.task.epochs)
            say(f"{alone[genes][0]:.4f}")
    say("train the uniform width for longer")
    longer = {uniform: train_alone(bench, uniform, seed, len(spent))[0]}
    rows = [
        row(bench, profile, name, genes, costs[profile], alone, longer)
        for profile, best in chosen.items()
        for name, genes in (("found", best), ("uniform", uniform))
    ]
    return Result(
        space=space.size,
        candidates=bill.candidates,
        held_out=bench.judge.reported_samples,
        rows=tuple(rows),
        training_seconds=bill.training_seconds,
        search_seconds=bill.search_seconds,
        alone_seconds=tuple(seconds for _, seconds in alone.values()),
    )


def row(bench: Any, profile: str, name: str, genes: Any, cost: Any, alone: Any, longer: Any) -> Row:
    """Figures of one network."""
    size = bench.network.resolution(genes)
    module = bench.judge.module(genes)
    return Row(
        profile=profile,
        network=name,
        predicted_ms=cost(genes) if profile != CONTROL else None,
        host_ms=host_ms(bench, module, size),
        macs=bench.costs.macs(genes),
        accuracy=bench.judge.reported(module, size),
        alone=alone[genes][0] if genes in alone else None,
        longer=longer.get(genes),
        structure=structure(bench, genes),
    )


def structure(bench: Any, genes: Any) -> str:
    """In a line."""
    network = bench.network
    depths = "".join(map(str, network.depths(genes).values()))
    kernels = "".join(map(str, network.kernels(genes).values()))
    shares = network.space.chosen(genes, "width").values()
    side = bench.task.resolutions[network.resolution(genes)][0]
    return f"{side} px, depth {depths}, kernels {kernels}, widths {statistics.mean(shares):.2f}"


def train_alone(bench: Any, genes: Any, seed: int, epochs: int) -> tuple[float, float]:
    """The same architecture from fresh weights, at its own resolution: accuracy and seconds."""
    import torch

    from converters.supernet.train import clock
    from converters.train import DEFAULT_LEARNING_RATE, cosine, set_rate

    torch.manual_seed(seed)
    task, size = bench.task, bench.network.resolution(genes)
    module = bench.network.build(genes).requires_grad_(True)
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-2)
    started = clock()
    for number in range(1, epochs + 1):
        set_rate(optimizer, DEFAULT_LEARNING_RATE * cosine(number - 1, epochs))
        module.train()
        for inputs, targets in task.task.training(*task.resolutions[size], seed * 1000 + number):
            optimizer.zero_grad()
            task.task.loss(module(inputs), targets).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimizer.step()
    seconds = clock() - started
    return bench.judge.reported(module.eval(), size), seconds


def host_ms(bench: Any, module: Any, size: int) -> float:
    """Lower quartile of an inference in ONNX Runtime on one thread."""
    import time

    import numpy as np
    import onnxruntime as ort

    from converters.module import check_examples, contiguous
    from converters.onnx_export import export_onnx

    example = check_examples(bench.task, module, *bench.task.resolutions[size])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(contiguous(module), example, path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: example[0].numpy()}
    took = []
    for _ in range(RUNS):
        start = time.thread_time()
        session.run(None, feed)
        took.append((time.thread_time() - start) * 1e3)
    return float(np.percentile(took, 25))


def show(result: Result) -> None:
    """As a table."""
    print(
        f"{result.space:.3g} sub-networks, {result.candidates} measured; {result.held_out} held-out"
    )
    print(
        f"{'profile':19}{'network':9}{'ms':>7}{'here':>7}{'MMACs':>7}{'shared':>8}{'alone':>8}{'longer':>8}"
    )
    for item in result.rows:
        ms = f"{item.predicted_ms:.3f}" if item.predicted_ms is not None else "-"
        print(
            f"{item.profile:19}{item.network:9}{ms:>7}{item.host_ms:7.3f}"
            f"{item.macs / 1e6:7.2f}{item.accuracy * 100:8.2f}{percent(item.alone):>8}"
            f"{percent(item.longer):>8}  {item.structure}"
        )
    for text, gain in (
        ("for the task's epochs (bar: at least 0)", result.gain),
        ("as long as the supernet (no bar)", result.harder_gain),
    ):
        gains = ", ".join(f"{name} {gain(name) * 100:+.2f} points" for name in (*PROFILES, CONTROL))
        print(f"found, as it is, against uniform trained alone {text}: {gains}")
    print(
        f"supernet {result.training_seconds:.0f} s + search {result.search_seconds:.0f} s; "
        f"{result.candidates} candidates trained separately {result.separate_seconds:.0f} s "
        f"({statistics.mean(result.alone_seconds):.1f} s each): 1/{result.ratio:.1f} "
        f"(bar 1/{LEAST_RATIO:g})"
    )


def percent(share: float | None) -> str:
    """Of a measured share."""
    return f"{share * 100:.2f}" if share is not None else "-"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller network, fewer epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=100, help="measured per profile")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ref = f"{TASKS}:{'Quick' if arguments.quick else 'Digits'}"
    result = measure(ref, arguments.seed, arguments.candidates)
    if arguments.json:
        extra = {"ratio": result.ratio, "passes": result.passes}
        print(json.dumps(asdict(result) | extra, indent=2))
    else:
        show(result)
    if arguments.check and not result.passes:
        sys.exit(1)


if __name__ == "__main__":
    main()
