"""A trained wake word as a task, so that it is converted, verified and rolled out like any model.

Training leaves a folder: ``wakeword.json`` says how to listen, ``samples.npz`` holds features to
calibrate with and to be judged by, ``weights.pt`` the weights, and ``task.py`` two lines that make
a task of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from converters.wakeword.ears import Halves
from converters.wakeword.evaluate import Rule
from converters.wakeword.network import FEATURES, STRIDE, Shape, Step, WakeNetwork
from edge_sdk.contracts.audio import SoundInfo, WakeWord
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import TaskError

ABOUT: Final = "wakeword.json"
SAMPLES: Final = "samples.npz"
WEIGHTS: Final = "weights.pt"
TASK: Final = "task.py"
SAMPLE_FRAMES: Final = 240
_SOURCE: Final = '''"""A wake word; converters/wakeword/task.py says what belongs to it."""

from pathlib import Path

from converters.wakeword.task import WakeTask


class Task(WakeTask):
    folder = Path(__file__).parent
'''


class About(msgspec.Struct, frozen=True):
    """How to listen for a phrase."""

    name: str
    phrase: str
    rule: Rule
    channels: int
    trunk: tuple[tuple[int, int], ...]
    head: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> Shape:
        """Of the network."""
        return Shape(self.channels, self.trunk, self.head)


class WakeTask:
    """Base of the task in a folder; see :mod:`converters.task`.

    Raises:
        TaskError: ``task.bad-wakeword`` where the folder lacks something or was changed.
    """

    kind = "generic"
    tolerance = 0.3
    sequence_steps = SAMPLE_FRAMES // STRIDE
    folder: Path

    def __init__(self) -> None:
        self._about = read_about(self.folder)
        self.name = self._about.name
        self.states = tuple((i, i) for i in range(1, 1 + len(self._network().sizes())))
        rule = self._about.rule
        self.sound = SoundInfo(
            features=FEATURES,
            frames_per_step=STRIDE,
            labels=(self._about.phrase,),
            activation="sigmoid",
            words=(
                WakeWord(
                    label=self._about.phrase,
                    output=0,
                    cutoff=rule.cutoff,
                    window_steps=rule.window_steps,
                    refractory_s=rule.refractory_s,
                ),
            ),
        )

    def _network(self) -> WakeNetwork:
        return WakeNetwork(self._about.shape)

    def build(self) -> nn.Module:
        """One step of the network."""
        return Step(self._network())

    def example_input(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Silence."""
        return (torch.zeros(1, FEATURES.bands, STRIDE), *self._network().states(1))

    def calibration(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        """Phrases and other sound that were learned from."""
        return self._streams("calibration")

    def evaluation(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        """Phrases and other sound that were not."""
        return self._streams("evaluation")

    def _streams(self, part: str) -> Iterator[tuple[Tensor, ...]]:
        """Step by step; the converter fills the states in."""
        try:
            with np.load(self.folder / SAMPLES) as file:
                streams = file[part].astype(np.float32)
        except (OSError, ValueError, KeyError) as error:
            raise _bad(self.folder, SAMPLES, error) from error
        for stream in streams:
            steps = stream.reshape(-1, STRIDE, FEATURES.bands).transpose(0, 2, 1)
            states = self._network().states(len(steps))
            yield (torch.from_numpy(np.ascontiguousarray(steps)), *states)


def read_about(folder: Path) -> About:
    """What a folder says of its phrase.

    Raises:
        TaskError: ``task.bad-wakeword``.
    """
    try:
        return msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError) as error:
        raise _bad(folder, ABOUT, error) from error


def write_task(
    folder: Path, about: About, network: WakeNetwork, samples: dict[str, list[Halves]]
) -> None:
    """Write everything a :class:`WakeTask` needs.

    Args:
        samples: streams (:data:`SAMPLE_FRAMES`, bands) for ``calibration`` and ``evaluation``.

    Raises:
        StorageError: the folder cannot be written.
    """
    from io import BytesIO

    from converters.module import save_weights

    storage = DiskStorage()
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        calibration=np.stack(samples["calibration"]),
        evaluation=np.stack(samples["evaluation"]),
    )
    storage.write(folder / SAMPLES, buffer.getvalue())
    save_weights(Step(network), folder / WEIGHTS)
    storage.write(folder / TASK, _SOURCE.encode())
    storage.write(folder / ABOUT, msgspec.json.format(msgspec.json.encode(about), indent=2))


def _bad(folder: Path, name: str, error: Exception) -> TaskError:
    return TaskError(
        "bad-wakeword",
        f"{folder / name} cannot be read: {error}.",
        "Give the folder that edge audio wakeword train wrote.",
    )
