"""A task with elastic depth, kernels, widths and resolutions that trains in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from converters.loading import LoadedTask, load_task
from tests.fakes.bars import BARS

ELASTIC = (
    BARS
    + '''
from converters.supernet.space import Elastic


class Block(nn.Module):
    def __init__(self, channels, inner):
        super().__init__()
        self.first = nn.Conv2d(channels, inner, 5, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, channels, 3, 1, 1, bias=False)
        self.after = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.after(self.second(torch.relu(self.norm(self.first(x))))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.stage = nn.Sequential(Block(16, 24), Block(16, 24))
        self.pool = nn.AdaptiveAvgPool2d((1, 3))
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        return self.head(self.pool(self.stage(torch.relu(self.stem(x)))).flatten(1))


class Bars(Base):
    name = "elastic-bars"
    elastic = Elastic(depth={"stage": 1}, kernel={"stage.*.first": (3,)}, widths=(1.0, 0.5))


class NoStage(Bars):
    elastic = Elastic(depth={"stem.9": 1})


class NotSequential(Bars):
    elastic = Elastic(depth={"head": 1})


class NoKernel(Bars):
    elastic = Elastic(kernel={"nothing.*": (3,)})


class EvenKernel(Bars):
    elastic = Elastic(kernel={"stage.0.first": (4,)})


class LargerKernel(Bars):
    elastic = Elastic(kernel={"stage.0.first": (7,)})


class StridedKernel(Bars):
    class Unpadded(nn.Module):
        def __init__(self):
            super().__init__()
            self.stage = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.Conv2d(16, 8, 3))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.stage(x).mean((2, 3)))

    def build(self):
        return self.Unpadded()

    elastic = Elastic(kernel={"stage.0": (3,)})


class PlainStage(StridedKernel):
    """Blocks that do not add to what they are given cannot be left out."""

    elastic = Elastic(depth={"stage": 1})


class Oblong(Bars):
    """A kernel that is not square and not declared stays as it is."""

    elastic = Elastic()

    def build(self):
        net = Net()
        net.stage[0].second = nn.Conv2d(24, 16, (1, 5), 1, (0, 2), bias=False)
        return net


class NotElastic(Bars):
    elastic = {"stage": 1}


class Words(Bars):
    kind = "generic"


class Default(Bars):
    """Declares nothing: widths and resolutions."""

    elastic = Elastic()
'''
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread, for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def elastic_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file."""
    path = tmp_path_factory.mktemp("supernet") / "elastic_task.py"
    path.write_text(ELASTIC)
    return path


@pytest.fixture(scope="session")
def elastic_bars(elastic_file: Path) -> LoadedTask:
    """The task."""
    return load_task(f"{elastic_file}:Bars")
