"""Train the enhancer for so many minutes on one core.

    python examples/enhance/train.py -o out/enhance.pt --minutes 60

The speech is synthesised once and kept beside the weights.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from enhance_data import SPEC, recorded_noise, speech
from torch import nn

from converters.enhance.network import EnhanceNetwork
from converters.enhance.noisy import noisy_speech
from converters.enhance.train import Progress, train_for
from converters.sound.folders import read_sounds, sound_files
from edge_sdk.audio.samples import Floats

log = logging.getLogger("enhance")

BATCH = 12
SIZE = 38400
"""Samples of a piece: 2.4 s."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the weights of the average network as it goes."""
    asked = _asked(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    chance = np.random.default_rng(asked.seed)
    # First, so that a folder without sound is told before minutes of synthesis.
    recorded = list(read_sounds(sound_files(asked.speech or ()), SPEC.sample_rate_hz))
    said = spoken(asked.output.with_suffix(".speech.npz"), asked.utterances, asked.seed)
    said += recorded * asked.often
    noise = recorded_noise()
    log.info(f"{len(said)} utterances, {len(noise)} recordings of noise")
    network = EnhanceNetwork(SPEC.bands)
    if asked.weights:
        network.load_state_dict(torch.load(asked.weights, weights_only=True))

    def pieces() -> tuple[Floats, Floats]:
        pairs = [noisy_speech(said, noise, chance, SIZE) for _ in range(BATCH)]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def report(progress: Progress, average: nn.Module) -> None:
        torch.save(average.state_dict(), asked.output)
        log.info(f"{progress.share:6.1%} step {progress.steps} loss {progress.loss:.4f}")

    average = train_for(
        network,
        SPEC,
        pieces,
        60 * asked.minutes,
        rate=asked.rate,
        report=report,
        clock=time.process_time,  # a busy machine trains as much, only later
    )
    torch.save(average.state_dict(), asked.output)
    log.info(
        f"edge model convert examples/enhance/task.py:Enhance --weights {asked.output} "
        "-o out/enhance"
    )


def spoken(cache: Path, count: int, seed: int) -> list[Floats]:
    """Utterances, synthesised unless the file has them."""
    if not cache.exists():
        said = []
        for at, one in enumerate(speech(count, seed), 1):
            said.append((np.clip(one, -1, 1) * 32767).astype(np.int16))
            if at % 50 == 0:
                log.info(f"{at} of {count} utterances")
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, sound=np.concatenate(said), sizes=[len(one) for one in said])
    with np.load(cache) as found:
        ends = np.cumsum(found["sizes"])
        sound = found["sound"].astype(np.float32) / np.float32(32767)
    return list(np.split(sound, ends[:-1]))


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/enhance.pt"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--utterances", type=int, default=2000, help="to synthesise")
    parser.add_argument("--speech", type=Path, nargs="*", help="recorded speech, in addition")
    parser.add_argument("--often", type=int, default=1, help="count recorded speech so often")
    parser.add_argument("--weights", type=Path, help="to begin with")
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
