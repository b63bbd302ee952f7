"""A trained wake word as a task, so that it is converted, verified and rolled out like any model.

Training leaves a folder: ``wakeword.json`` says how to listen, ``samples.npz`` holds features to
calibrate with and to be judged by, ``weights.pt`` the weights, and ``task.py`` two lines that make
a task of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from zipfile import BadZipFile

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from converters.module import save_weights
from converters.wakeword.evaluate import Rule
from converters.wakeword.network import FEATURES, STRIDE, Shape, Step, WakeNetwork
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import FeatureSpec, SoundInfo, WakeWord
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import TaskError

ABOUT: Final = "wakeword.json"
SAMPLES: Final = "samples.npz"
WEIGHTS: Final = "weights.pt"
TASK: Final = "task.py"
SAMPLE_FRAMES: Final = 240
_SOURCE: Final = '''"""A wake word; {module} says what belongs to it."""

from pathlib import Path

from {module} import {kind}


class Task({kind}):
    folder = Path(__file__).parent
'''


class HowToListen(msgspec.Struct, frozen=True):
    """For a phrase, whatever network knows it."""

    name: str
    phrase: str
    rule: Rule


class About(HowToListen, frozen=True):
    """The same, and the network with a trunk of its own."""

    channels: int
    trunk: tuple[tuple[int, int], ...]
    head: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> Shape:
        """Of the network."""
        return Shape(self.channels, self.trunk, self.head)


_About = TypeVar("_About", bound=HowToListen)


class ListeningTask:
    """Base of the tasks in such folders; see :mod:`converters.task`.

    Raises:
        TaskError: ``task.bad-wakeword`` where the folder lacks something or was changed.
    """

    kind = "generic"
    tolerance = 0.3
    folder: Path
    features: FeatureSpec
    frames_per_step: int
    order: Literal["frames-bands", "bands-frames"]
    sample_frames: int
    """Of a stream in ``samples.npz``."""

    def __init__(self) -> None:
        about = self.about()
        self.name = about.name
        self.sequence_steps = self.sample_frames // self.frames_per_step
        self._new = self.build().states(1)
        self.states = tuple((i, i) for i in range(1, 1 + len(self._new)))
        self.sound = SoundInfo(
            features=self.features,
            frames_per_step=self.frames_per_step,
            order=self.order,
            labels=(about.phrase,),
            activation="sigmoid",
            words=(
                WakeWord(
                    label=about.phrase,
                    output=0,
                    cutoff=about.rule.cutoff,
                    window_steps=about.rule.window_steps,
                    refractory_s=about.rule.refractory_s,
                ),
            ),
        )

    def about(self) -> HowToListen:
        """What ``wakeword.json`` says."""
        raise NotImplementedError

    def build(self) -> Any:
        """One step of the network: a module whose ``states(count)`` are those of new streams."""
        raise NotImplementedError

    def example_input(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Frames of zero."""
        frames = np.zeros((1, self.frames_per_step, self.features.bands), np.float32)
        return (self._laid(frames), *self._new)

    def calibration(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        """Phrases and other sound that were learned from."""
        return self._streams("calibration")

    def evaluation(self, height: int, width: int) -> Iterator[tuple[Tensor, ...]]:
        """Phrases and other sound that were not."""
        return self._streams("evaluation")

    def _streams(self, part: str) -> Iterator[tuple[Tensor, ...]]:
        """Step by step; the converter fills the states in."""
        states = [new.repeat(self.sequence_steps, *[1] * (new.ndim - 1)) for new in self._new]
        for stream in self._samples(part):
            steps = stream.reshape(-1, self.frames_per_step, self.features.bands)
            yield (self._laid(steps), *states)

    def _samples(self, part: str) -> Floats:
        shape = (self.sample_frames, self.features.bands)
        try:
            with (self.folder / SAMPLES).open("rb") as raw, np.load(raw) as file:
                streams: Floats = file[part].astype(np.float32)
            if streams.shape[1:] != shape:
                raise ValueError(f"streams are {streams.shape[1:]} and not {shape}")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise _bad(self.folder, SAMPLES, error) from error
        return streams

    def _laid(self, steps: Floats) -> Tensor:
        """(N, frames, bands) as the network takes them."""
        laid = steps.transpose(0, 2, 1) if self.order == "bands-frames" else steps
        return torch.from_numpy(np.ascontiguousarray(laid))


class WakeTask(ListeningTask):
    """A network with a trunk of its own."""

    features = FEATURES
    frames_per_step = STRIDE
    order: Literal["frames-bands", "bands-frames"] = "bands-frames"
    sample_frames = SAMPLE_FRAMES

    def about(self) -> About:
        """What ``wakeword.json`` says."""
        return read_about(self.folder, About)

    def build(self) -> Step:
        """One step of the network."""
        return Step(WakeNetwork(self.about().shape))


def read_about(folder: Path, kind: type[_About]) -> _About:
    """What a folder says of its phrase.

    Raises:
        TaskError: ``task.bad-wakeword``.
    """
    try:
        return msgspec.json.decode((folder / ABOUT).read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise _bad(folder, ABOUT, error) from error


def write_task(
    folder: Path,
    kind: type[ListeningTask],
    about: HowToListen,
    step: nn.Module,
    samples: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write everything such a task needs.

    Args:
        kind: the task's class.
        step: with the weights.
        samples: streams (``kind.sample_frames``, bands) for ``calibration`` and ``evaluation``.

    Raises:
        StorageError: the folder cannot be written.
    """
    storage = DiskStorage()
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        calibration=np.stack(samples["calibration"]),
        evaluation=np.stack(samples["evaluation"]),
    )
    storage.write(folder / SAMPLES, buffer.getvalue())
    save_weights(step, folder / WEIGHTS)
    source = _SOURCE.format(module=kind.__module__, kind=kind.__name__)
    storage.write(folder / TASK, source.encode())
    storage.write(folder / ABOUT, msgspec.json.format(msgspec.json.encode(about), indent=2))


def _bad(folder: Path, name: str, error: Exception) -> TaskError:
    return TaskError(
        "bad-wakeword",
        f"{folder / name} cannot be read: {error}.",
        "Give the folder that edge audio wakeword train wrote.",
    )
