"""``edge model`` as a user meets it: exit codes, one JSON document, next steps, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from converters.convert import Outcome
from edge_sdk.cli.model import command

EDGE = "from edge_sdk.cli.main import main; main()"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def run_json(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["ok"] is True
    return document


def test_train_reports_and_writes(tiny: str, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    document = run_json("train", tiny, "-o", str(weights), "--epochs", "2", "--seed", "5")
    assert weights.is_file()
    assert len(document["result"]["epochs"]) == 2
    assert set(document["result"]["accuracy"]) == {"24x24", "12x12"}
    assert document["next"] == [f"edge model convert {tiny} --weights {weights}"]


def test_train_prints_each_epoch(tiny: str, tmp_path: Path) -> None:
    result = run("train", tiny, "-o", str(tmp_path / "w.pt"), "--epochs", "1")
    assert result.exit_code == 0
    assert "epoch   1/1" in result.stdout
    assert "Next:" in result.stdout


def test_convert_from_the_shell(tiny: str, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["model", "convert", tiny, "-w", str(tiny_weights), "-o", str(out), "--json"]
    narrow = ["-p", "x86-generic", "--format", "onnx", "--resolutions", "12x12"]
    schemes = ["--schemes", "static_wi8_ai8"]
    done = subprocess.run(
        [sys.executable, "-c", EDGE, *arguments, *narrow, *schemes],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)["result"]
    assert [item["scheme"] for item in result["artifacts"]] == ["fp32", "static_wi8_ai8"]
    for item in result["artifacts"]:
        assert (out / item["file"]).stat().st_size == item["bytes"]
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["convert", "none.py:Task"], "task.file-missing", 4),
        (["convert", "TASK", "-p", "rpi44"], "profile.unknown", 4),
        (["convert", "TASK", "--schemes", "int8"], "conversion.bad-scheme", 4),
        (["convert", "TASK", "--resolutions", "big"], "usage.bad-resolution", 2),
        (["convert", "TASK", "-w", "none.pt"], "task.weights-missing", 4),
        (["convert", "TASK", "--max-drop", "nan"], "usage.bad-share", 2),
        (["convert", "TASK", "--min-accuracy", "-0.1"], "usage.bad-share", 2),
        (["import", "any.onnx", "--max-drop", "7"], "usage.bad-share", 2),
        (["train", "TASK", "--epochs", "0"], "task.not-trainable", 4),
        (["inspect", "none.onnx"], "conversion.file-missing", 4),
        (["bench", "none.onnx"], "conversion.file-missing", 4),
        (["bench", "."], "conversion.not-a-conversion", 4),
    ],
)
def test_errors_have_code_cause_hint_and_exit_code(
    tiny: str, tmp_path: Path, monkeypatch, arguments: list[str], code: str, exit_code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(tiny if part == "TASK" else part for part in arguments), "--json")
    assert result.exit_code == exit_code, result.output
    error = json.loads(result.stdout)["error"]
    assert error["code"] == code
    assert error["cause"] and error["hint"]
    assert [path.name for path in tmp_path.iterdir()] in ([], ["out"])
    assert not any((tmp_path / "out").glob("*")) and not any((tmp_path / "out").glob(".*"))


def test_inspect_a_file_and_a_folder(tiny_conversion: Outcome) -> None:
    path = tiny_conversion.out / "artifacts" / "tiny-12x12-static_wi8_ai8.onnx"
    text = run("inspect", str(path), "--scheme", "static_wi8_ai8").stdout
    assert "int8[1, 1, 12, 12] NCHW, scale" in text
    assert "It is what static_wi8_ai8 claims." in text
    facts = run_json("inspect", str(tiny_conversion.out))["result"]
    assert len(facts) == len(tiny_conversion.measured)


def test_inspect_refuses_a_false_claim(tiny_conversion: Outcome) -> None:
    path = tiny_conversion.out / "artifacts" / "tiny-12x12-wfp16.tflite"
    result = run("inspect", str(path), "--scheme", "static_wi8_ai8")
    assert result.exit_code == 4
    assert "error[conversion.false-claim]" in result.stderr


def test_bench_a_ladder(tiny_conversion: Outcome) -> None:
    arguments = ("bench", str(tiny_conversion.out), "-p", "x86-generic", "--seconds", "0.05")
    rows = run_json(*arguments)["result"]
    assert {row["runtime"] for row in rows} == {"onnxruntime"}
    assert all(row["median_ms"] <= row["p95_ms"] for row in rows)
    assert run("bench", str(tiny_conversion.out), "-p", "rpi5").exit_code == 2
