"""The zoo itself, a part of it at every run and all of it where there is time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmarks.zoo as benchmark
from converters.survey import SCHEMES, survey
from tests.zoo import zoo

PAGE = Path(__file__).parents[3] / "docs" / "zoo.md"


def test_the_zoo_is_large_enough_and_every_class_is_there() -> None:
    from converters.loading import load_task

    found = zoo()
    assert len(found) >= 24
    for name, ref in found.items():
        assert load_task(ref).name == name


def test_three_architectures_in_every_format_and_scheme(tmp_path: Path) -> None:
    """Several inputs with token ids, states in and out, and images with two kinds of output."""
    names = ("MultiInput", "StreamingConv", "MultiOutput")
    cells = survey({name: zoo()[name] for name in names}, tmp_path, seconds=0.01)
    assert [(c.task, c.format, c.scheme) for c in cells] == [
        (name, kind, scheme) for name in names for kind in ("onnx", "tflite") for scheme in SCHEMES
    ]
    for cell in cells:
        assert cell.verified, cell
        floor = {"fp32": 90, "wfp16": 50, "dynamic_wi8_afp32": 25, "static_wi8_ai8": 15}
        assert cell.sqnr_db > floor[cell.scheme], cell
        assert cell.latency_ms > 0
        assert cell.agreement == 1.0


def test_a_crash_is_one_cell_and_the_survey_goes_on(tmp_path: Path) -> None:
    """A network that kills its exporter's process, followed by one that works."""
    (tmp_path / "deadly.py").write_text(
        "import os, torch\nfrom torch import nn\n"
        "class Deadly:\n"
        "    kind = 'generic'\n    name = 'deadly'\n"
        "    def build(self):\n        return nn.Linear(4, 4)\n"
        "    def example_input(self, h, w):\n        os.abort()\n"
        "    calibration = evaluation = example_input\n"
        "class Plain(Deadly):\n"
        "    name = 'plain'\n"
        "    def example_input(self, h, w):\n        return torch.randn(1, 4)\n"
        "    def calibration(self, h, w):\n        yield torch.randn(8, 4)\n"
        "    evaluation = calibration\n"
    )
    tasks = {name: f"{tmp_path / 'deadly.py'}:{name}" for name in ("Deadly", "Plain")}
    cells = survey(tasks, tmp_path / "out", formats=("onnx",), schemes=("fp32",), seconds=0.01)
    assert [cell.code for cell in cells] == ["conversion.native-crash", ""]


def test_the_page_shows_every_cell() -> None:
    text = PAGE.read_text()
    for name in zoo():
        for kind in ("onnx", "tflite"):
            assert f"| {name} | {kind} |" in text
    refused = text.partition("## Refused")[2].strip().splitlines()
    shown = {tuple(line.removeprefix("- ").partition(": ")[0].split(", ")) for line in refused}
    assert shown == set(benchmark.EXPECTED)


@pytest.mark.slow
def test_every_cell_is_verified_or_refused_as_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main(["--check", "--json", "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    cells, _ = json.JSONDecoder().raw_decode(text)
    assert len(cells) == len(zoo()) * 2 * len(SCHEMES)
