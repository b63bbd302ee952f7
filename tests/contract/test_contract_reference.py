"""``docs/reference`` is what the source says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.contracts.export import documents, render, schema_of

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
REMEDY = "run: python -m edge_sdk.contracts.export docs/reference"


@pytest.mark.parametrize("name", sorted(render()))
def test_committed_file_is_current(name: str) -> None:
    path = REFERENCE / name
    assert path.is_file(), f"{name} is missing; {REMEDY}"
    assert path.read_text() == render()[name], f"{name} is out of date; {REMEDY}"


def test_no_file_is_left_over() -> None:
    assert {path.name for path in REFERENCE.iterdir()} - {"README.md"} == set(render())


def test_the_rule_names_every_document() -> None:
    text = (REFERENCE / "README.md").read_text()
    assert "Compatibility rule" in text
    missing = [kind.__name__ for kind in documents() if f"`{kind.__name__}`" not in text]
    assert not missing


def test_descriptions_come_from_the_docstrings_under_the_fields() -> None:
    schema = schema_of(next(kind for kind in documents() if kind.__name__ == "ChunkRequest"))
    chunks = schema["$defs"]["ChunkRequest"]["properties"]["chunks"]
    assert chunks["description"] == "Indexes into the blob's chunk list; at most 64."


def test_no_markup_is_left_in_descriptions() -> None:
    text = "\n".join(json.dumps(schema_of(kind)) for kind in documents())
    assert ":class:" not in text
    assert ":data:" not in text
    assert "``" not in text


def test_the_command_writes_the_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_sdk.contracts.export", str(tmp_path / "new")]
    subprocess.run(command, check=True, timeout=60)
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert written == render()
    assert subprocess.run(command[:-1], capture_output=True, check=False).returncode != 0
