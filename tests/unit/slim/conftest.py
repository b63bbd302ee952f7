"""A small task that trains in a second, and weights of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from converters.loading import LoadedTask, load_task
from converters.module import save_weights
from converters.train import train
from tests.fakes.bars import BARS

SLIM = (
    BARS
    + """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.body = nn.Sequential(
            nn.Conv2d(16, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 16, 3, 1, 1), nn.Dropout(0.1),
        )
        self.pool = nn.AdaptiveAvgPool2d((1, 3))
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(self.pool(torch.relu(x + self.body(x))).flatten(1))


class Bars(Base):
    name = "bars"


class Unlabelled(Bars):
    name = "unlabelled"
    training = property()
    loss = property()


class Recurrent(Bars):
    name = "recurrent"
    resolutions = ((12, 12),)

    def build(self):
        class Cell(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell, self.head = nn.GRU(12, 8, batch_first=True), nn.Linear(8, 3)

            def forward(self, x):
                return self.head(self.cell(x[:, 0])[0][:, -1])

        return Cell()
"""
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread, for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bars_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file."""
    path = tmp_path_factory.mktemp("slim") / "bars_task.py"
    path.write_text(SLIM)
    return path


@pytest.fixture(scope="session")
def bars(bars_file: Path) -> LoadedTask:
    """The task."""
    return load_task(f"{bars_file}:Bars")


@pytest.fixture(scope="session")
def bars_weights(bars: LoadedTask, bars_file: Path) -> Path:
    """Its weights, trained for real."""
    path = bars_file.with_name("bars.pt")
    save_weights(train(bars, epochs=5).module, path)
    return path
