"""What the ``edge`` command prints: one JSON document or text, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edge_sdk.cli.main import NOUNS
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import EdgeError, LinkError, ProfileError, TrustError


@click.command()
@click.argument("name")
@with_output
def greet(out: Output, name: str) -> None:
    """A command such as all of ours."""
    if name == "nobody":
        raise ProfileError("unknown", "There is no nobody.", "Name somebody.")
    out.line(f"hello {name}")
    out.table("people", ["name", "size"], [[name, 3], ["other", 10]])
    with out.progress("greeting", total=2) as bar:
        bar.step("one")
        bar.step()
    out.result({"greeted": name})
    out.next_step("edge device list", "edge demo")


def test_a_person_sees_lines_a_table_and_the_next_steps() -> None:
    done = CliRunner().invoke(greet, ["ada"])
    assert done.exit_code == 0
    assert done.stdout.startswith("hello ada\n")
    assert "people" in done.stdout
    assert done.stdout.rstrip().endswith("Next:\n  edge device list\n  edge demo")


def test_json_is_exactly_one_document_on_standard_output() -> None:
    done = CliRunner().invoke(greet, ["ada", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "ok": True,
        "result": {"greeted": "ada"},
        "next": ["edge device list", "edge demo"],
    }


def test_an_error_goes_to_standard_error_with_its_families_exit_code() -> None:
    done = CliRunner().invoke(greet, ["nobody"])
    assert done.exit_code == ProfileError.exit_code
    assert done.stdout == ""
    assert done.stderr == "error[profile.unknown]: There is no nobody.\nHint: Name somebody.\n"


def test_an_error_in_json_is_one_document_with_the_same_exit_code() -> None:
    done = CliRunner().invoke(greet, ["nobody", "--json"])
    assert done.exit_code == ProfileError.exit_code
    assert json.loads(done.stdout) == {
        "ok": False,
        "error": {
            "code": "profile.unknown",
            "cause": "There is no nobody.",
            "hint": "Name somebody.",
        },
    }


def test_markup_and_very_long_lines_are_printed_as_they_are() -> None:
    name = "[bold]" + "x" * 300 + ":smile:"
    done = CliRunner().invoke(greet, [name])
    assert done.stdout.splitlines()[0] == f"hello {name}"
    short = CliRunner().invoke(greet, ["[b]:smile:"])
    assert short.stdout.count("[b]:smile:") == 2, "in the line and in the table"


@click.command()
@with_output
def wide(out: Output) -> None:
    """A table that fits 120 columns and not 60."""
    out.table("", ["first", "second", "third"], [["x" * 30, "y" * 30, "z" * 30]])


def test_a_table_that_is_piped_is_not_folded_to_an_imagined_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert any("x" * 30 in line and "z" * 30 in line for line in table_lines())
    monkeypatch.setenv("COLUMNS", "60")
    assert all(len(line) <= 60 for line in table_lines())


def test_tables_have_one_rule_and_no_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = "".join(table_lines())
    assert set(text) - set(" xyzfirstecondhd") == {"─"}


def table_lines() -> list[str]:
    return CliRunner().invoke(wide, []).stdout.splitlines()


@pytest.mark.parametrize("kind", [LinkError, TrustError])
def test_exit_codes_differ_between_families(kind: type[EdgeError]) -> None:
    @click.command()
    @with_output
    def fail(out: Output) -> None:
        raise kind("x", "y", "z")

    assert CliRunner().invoke(fail, []).exit_code == kind.exit_code
    assert LinkError.exit_code != TrustError.exit_code


def edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from edge_sdk.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_help_lists_every_noun() -> None:
    done = edge("--help")
    assert done.returncode == 0
    for noun in NOUNS:
        assert f"  {noun} " in done.stdout


def test_a_misspelt_noun_is_suggested_without_a_traceback() -> None:
    done = edge("rollot", "status")
    assert done.returncode == 2
    assert "Did you mean 'rollout'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_host_packages_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ImportError('absent')\n")
    done = subprocess.run(
        [sys.executable, "-c", "from edge_sdk.cli.main import main; main()"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "error[usage.extra-missing]" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
