"""Converting again repeats nothing; whatever changes is done again, and only that."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from converters.cache import Cache
from converters.convert import Options, Outcome, convert
from converters.keys import module_digest
from converters.loading import load_task
from converters.module import build_module
from converters.reuse import MAX_LATENCY_AGE_S

OPTIONS = Options(
    schemes=("static_wi8_ai8",), resolutions=((12, 12),), formats=("onnx",), max_drop=1.0
)
"""One format: the keys are made alike for both."""


def files(outcome: Outcome) -> dict[str, str]:
    names = [path for path in outcome.out.rglob("*") if path.suffix in (".tflite", ".onnx", ".npz")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


class Runs:
    """Conversions of one task through one cache."""

    def __init__(self, folder: Path, task: str) -> None:
        self.folder, self.task, self.now = folder, task, 1e9
        self.said: list[str] = []

    def __call__(self, name: str, *profiles: str, options: Options = OPTIONS) -> Outcome:
        self.said = []
        cache = Cache(self.folder / "cache", clock=lambda: self.now)
        out = self.folder / name
        return convert(
            self.task, profiles, out, options=options, cache=cache, progress=self.said.append
        )


@pytest.mark.slow
def test_a_second_conversion_runs_nothing_and_gives_the_same(tmp_path: Path, tiny: str) -> None:
    runs = Runs(tmp_path, tiny)
    first = runs("first", "x86-generic")
    assert first.passes[0] == 0
    work = first.passes[1]
    again = runs("again", "x86-generic")
    assert again.passes == (work, 0)
    assert files(again) == files(first)
    assert any("from the cache" in text for text in runs.said)
    assert [m.accuracy for m in again.measured] == [m.accuracy for m in first.measured]

    other = runs("other", "rpi4")  # another profile: at most other thread counts are timed
    assert other.passes[1] <= len(other.measured)
    assert files(other) == files(first)
    assert not any("export" in text for text in runs.said)

    runs.now += MAX_LATENCY_AGE_S + 1
    late = runs("late", "x86-generic")
    assert 0 < late.passes[1] <= 2 * len(late.measured)
    assert all(m.latency[1].age_s == 0 for m in late.measured)
    assert files(late) == files(first)

    damaged = sorted((tmp_path / "cache").rglob("blobs/*"))
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    repaired = runs("repaired", "x86-generic")
    assert files(repaired) == files(first)
    assert repaired.passes[1] > 0


def test_the_digest_of_a_module_follows_code_weights_and_plain_attributes(
    write_task, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    def digest(code: str = "") -> str:
        task = load_task(write_task(code))
        return module_digest(task, build_module(task, None))

    plain = digest()
    assert plain == digest()
    other_weights = "def build(self):\n    torch.manual_seed(2)\n    return Net()"
    assert len({plain, digest(other_weights), digest("comment = 1")}) == 3


def test_attributes_that_no_source_shows_count_too(write_task, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code = (
        "def build(self):\n"
        "    net = super().build()\n"
        f"    net.gain = float(np.loadtxt({str(tmp_path / 'gain')!r}))\n"
        "    return net"
    )
    found = set()
    for gain in ("1.0", "2.0"):
        (tmp_path / "gain").write_text(gain)
        task = load_task(write_task(code))
        found.add(module_digest(task, build_module(task, None)))
    assert len(found) == 2
