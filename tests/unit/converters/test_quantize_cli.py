"""``edge model convert``'s options for calibration, repair and mixing, through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_sdk.cli.model import command
from edge_sdk.cli.model_quantize import GRANULARITIES, METHODS

SMALL = ("-p", "x86-generic", "--format", "onnx", "--resolutions", "12x12", "--no-cache", "--json")


def test_the_choices_are_those_of_the_converters() -> None:
    from converters.settings import GRANULARITIES as GRAINS
    from converters.settings import METHODS as KNOWN

    assert METHODS == KNOWN and GRANULARITIES == GRAINS


def test_repairs_are_reported_even_when_refused(
    tiny: str, tiny_weights: Path, tmp_path: Path
) -> None:
    arguments = ["convert", tiny, "-w", str(tiny_weights), "-o", str(tmp_path / "out"), *SMALL]
    chosen = ["--schemes", "static_wi8_ai8,weight_only_wi8", "--calibration", "mse"]
    found = CliRunner().invoke(command, [*arguments, *chosen, "--repair", "always"])
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)["result"]
    assert {item["scheme"] for item in result["artifacts"]} == {
        "fp32",
        "static_wi8_ai8",
        "weight_only_wi8_afp32",
    }
    assert [item["kind"] for item in result["repairs"]] == ["equalization", "bias correction"]
    for item in result["repairs"]:
        better = item["after_db"] > item["before_db"] or (
            item["after_accuracy"] > item["before_accuracy"]
        )
        assert better or not item["applied"]
    assert result["sensitivities"] == [] and result["warnings"] == []


@pytest.mark.parametrize(
    "option", [("--calibration", "guess"), ("--repair", "maybe"), ("--mixed", "on")]
)
def test_unknown_choices_are_refused(tiny: str, option: tuple[str, str]) -> None:
    found = CliRunner().invoke(command, ["convert", tiny, *option])
    assert found.exit_code == 2
    assert option[1] in found.output
