"""The zoo itself, a part of it at every run and all of it where there is time."""

from __future__ import annotations

import json
import re
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


REPRESENTATIVE = (
    *("MobileNetV3", "ShuffleNet", "ConvNeXt", "RegNet"),  # hard swish, shuffles, GELU, groups
    *("UNet", "FpnDetector", "GanGenerator"),  # resizing, four outputs, transposed convolutions
    *("MobileViT", "TextEncoder", "Gru", "Lstm"),  # attention, token ids, recurrence, its state
    *("Tcn", "StreamingConv", "MultiInput"),  # one dimension, states in and out, several inputs
)
"""One network of every kind; `benchmarks/zoo.py --check` runs all of them."""


def test_every_kind_is_verified_or_refused_as_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [text for name in REPRESENTATIVE for text in ("--only", name)]
    assert benchmark.main(["--check", "--json", "--folder", str(tmp_path), *chosen]) == 0
    cells, _ = json.JSONDecoder().raw_decode(capsys.readouterr().out)
    assert len(cells) == len(REPRESENTATIVE) * 2 * len(SCHEMES)
    floor = {"fp32": 90, "wfp16": 50, "dynamic_wi8_afp32": 20, "static_wi8_ai8": 15}
    for cell in cells:
        if not cell["code"]:
            assert cell["sqnr_db"] > floor[cell["scheme"]], cell
            assert cell["latency_ms"] > 0
            assert cell["agreement"] > 0.9, cell


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


def test_what_a_refusal_advises_works(tmp_path: Path) -> None:
    names = ("TransposedConv", "Gru", "Lstm")
    schemes = (*SCHEMES, "weight_only_wi8_afp32", "mixed_static_wi8_ai8_fp32")
    cells = survey(
        {name: zoo()[name] for name in names},
        tmp_path,
        formats=("onnx",),
        schemes=schemes,
        seconds=0.01,
    )
    advised = set()
    for cell in cells:
        if cell.verified or (cell.task, cell.format, cell.scheme) not in benchmark.EXPECTED:
            continue
        assert "--format tflite" in cell.hint  # which the table shows to work
        for other in cells:
            if other.task == cell.task and other.scheme in re.findall(r"\w+", cell.hint):
                assert other.verified, (cell, other)
                advised.add((cell.task, other.scheme))
    assert advised == {
        ("TransposedConv", "weight_only_wi8_afp32"),
        ("TransposedConv", "static_wi8_ai8"),
        ("Gru", "mixed_static_wi8_ai8_fp32"),
        ("Lstm", "dynamic_wi8_afp32"),
        ("Lstm", "mixed_static_wi8_ai8_fp32"),
    }
