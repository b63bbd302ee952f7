"""A tiny task on synthetic shapes, and one real conversion of it per session."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.bars import BARS

TINY = (
    BARS
    + """
NOISE, LIGHT = 0.3, 1.5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d((1, 3))
        self.head = nn.Linear(96, 3)

    def forward(self, x):
        return self.head(self.pool(self.body(x)).flatten(1))


class Tiny(Base):
    name = "tiny"
    resolutions = ((24, 24), (12, 12))
    epochs = 3
    schemes = ("fp32", "wfp16", "dynamic_wi8_afp32", "static_wi8_ai8")
    calibrated, held_out, steps = 48, 60, 4
"""
)

WriteTask = Callable[..., str]


def variant(source: str, **methods: str) -> str:
    """The tiny task with methods or attributes of its class replaced or added."""
    body = "\n".join(textwrap.indent(textwrap.dedent(code), "    ") for code in methods.values())
    return f"{source}\n\nclass Variant(Tiny):\n{body or '    pass'}\n"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands of these tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache-home")))
        yield


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Write the tiny task, changed as asked; returns the reference of the changed class."""

    def write(code: str = "", *, name: str = "model", source: str = TINY) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(variant(source, code=code) if code else variant(source))
        return f"{path}:Variant"

    return write


@pytest.fixture
def school(tmp_path: Path) -> str:
    """A file with students and teachers of the tiny task."""
    from tests.fakes.school import SCHOOL

    path = tmp_path / "school.py"
    path.write_text(TINY + SCHOOL)
    return str(path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny task, unchanged."""
    path = tmp_path_factory.mktemp("task") / "tiny_task.py"
    path.write_text(TINY)
    return f"{path}:Tiny"


@pytest.fixture(scope="session")
def tiny_weights(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny task, trained for real."""
    from converters.loading import load_task
    from converters.module import save_weights
    from converters.train import train

    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    save_weights(train(load_task(tiny), epochs=6).module, path)
    return path


@pytest.fixture(scope="session")
def tiny_conversion(
    tiny: str, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    """One real conversion to both formats, all schemes and two resolutions."""
    from converters.convert import Options, convert

    out = tmp_path_factory.mktemp("converted") / "tiny"
    yield convert(
        tiny,
        ["rpi4", "jetson-orin-nano", "x86-generic"],
        out,
        options=Options(weights=tiny_weights),
    )
