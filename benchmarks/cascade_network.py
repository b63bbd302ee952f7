"""One network at several resolutions: shared kernels, norms and a head per resolution.

The lower resolutions learn the full one's answer in the same step (in-place distillation, as in
Yang et al., "MutualNet", ECCV 2020), because a gate needs their agreement more than their accuracy.
Per-resolution normalisation is what makes shared kernels usable at a size they were not made for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as nnf

from benchmarks.clothing import BATCH, PHOTOGRAPHS, Images, ResNet18, as_input, images_of

WARM_RATE, RATE = 1e-3, 6e-4
SMOOTHING = 0.1
HARD = 0.3
"""Weight of the labels beside the full resolution's answer."""

Networks = dict[int, nn.Module]


def resized(images: Images, side_px: int) -> Images:
    """Smaller squares by area, or the same."""
    if images.shape[1] == side_px:
        return images
    size = (side_px, side_px)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in images])


def build(sides_px: tuple[int, ...], width: int, weights: Path | None, seed: int = 0) -> Networks:
    """A network per resolution, the full one first; their kernels are the same tensors.

    Args:
        sides_px: resolutions, the full one first.
        width: channels of the first stage.
        weights: of the full resolution, as ``edge model train`` writes them; None for new ones.
        seed: of new weights.
    """
    torch.manual_seed(seed)
    full = ResNet18(10, width)
    if weights is not None:
        full.load_state_dict(torch.load(weights, weights_only=True))
    networks: Networks = {sides_px[0]: full}
    for side_px in sides_px[1:]:
        own = copy.deepcopy(full)
        for mine, shared in zip(own.modules(), full.modules(), strict=True):
            if isinstance(mine, nn.Conv2d) and isinstance(shared, nn.Conv2d):
                mine.weight = shared.weight
        networks[side_px] = own
    return networks


def train(
    networks: Networks, epochs: int, say: Callable[[str], None], *, rate: float, seed: int = 0
) -> None:
    """All resolutions together, by AdamW with a cosine schedule from ``rate``."""
    sides_px = tuple(networks)
    images, labels = images_of("train", sides_px[0])
    found = {id(p): p for network in networks.values() for p in network.parameters()}
    optimizer = torch.optim.AdamW(found.values(), lr=rate, weight_decay=1e-2)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)))
        for network in networks.values():
            network.train()
        random = np.random.default_rng(seed * 10_000 + epoch)
        order = random.permutation(len(labels))
        total, steps = 0.0, 0
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            batch = _augmented(images[chosen], random)
            total += _step(networks, batch, torch.from_numpy(labels[chosen]), optimizer)
            steps += 1
        say(f"epoch {epoch + 1}/{epochs}: loss {total / max(steps, 1):.3f}")
    for network in networks.values():
        network.eval()


def enlarged(networks: Networks, full_px: int) -> Networks:
    """The same networks, the full one to go on at another resolution."""
    return dict(zip((full_px, *list(networks)[1:]), networks.values(), strict=True))


def _augmented(batch: Images, random: np.random.Generator) -> Images:
    batch = batch.copy()
    if PHOTOGRAPHS.is_dir():  # a mirrored digit is another digit
        mirrored = random.random(len(batch)) < 0.5
        batch[mirrored] = batch[mirrored][:, :, ::-1]
    return np.roll(batch, tuple(random.integers(-6, 7, 2)), axis=(1, 2))


def _step(
    networks: Networks, batch: Images, labels: torch.Tensor, optimizer: torch.optim.Optimizer
) -> float:
    (_, full), *others = networks.items()
    optimizer.zero_grad()
    answer = full(as_input(batch))
    loss = nnf.cross_entropy(answer, labels, label_smoothing=SMOOTHING)
    loss.backward()
    target = answer.detach().softmax(1)
    for side_px, network in others:
        own = network(as_input(resized(batch, side_px)))
        soft = nnf.kl_div(own.log_softmax(1), target, reduction="batchmean")
        hard = nnf.cross_entropy(own, labels, label_smoothing=SMOOTHING)
        (soft + HARD * hard).backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()
    return float(loss.detach())


def save(networks: Networks, path: Path) -> None:
    """All resolutions' weights in one file."""
    torch.save({str(side): network.state_dict() for side, network in networks.items()}, path)


def load(networks: Networks, path: Path) -> None:
    """What :func:`save` wrote."""
    stored = torch.load(path, weights_only=True)
    for side_px, network in networks.items():
        network.load_state_dict(stored[str(side_px)])
        network.eval()
