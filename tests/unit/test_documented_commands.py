"""Every ``edge`` command line in the documentation exists, with the options it is shown with."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from agent.cli.main import _parser
from edge_sdk.cli.main import NOUNS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def command_lines(page: Path) -> list[str]:
    """Lines of shell blocks that begin with one of our commands, continuation lines joined."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    stripped = (line.strip().removeprefix("$ ").split("#")[0].strip() for line in lines)
    return [line for line in stripped if re.match(r"edge(-agent)? ", line)]


LINES = [(page.name, line) for page in PAGES for line in command_lines(page)]


def test_the_documentation_shows_commands() -> None:
    assert len(LINES) > 15


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_documented_command_exists(page: str, line: str) -> None:
    words = shlex.split(line)
    if words[0] == "edge-agent":
        _parser().parse_args(words[1:])
        return
    assert words[1] in NOUNS, f"{page}: {line}"
    command: click.Command = importlib.import_module(f"edge_sdk.cli.{words[1]}").command
    rest = words[2:]
    while isinstance(command, click.Group):
        context = click.Context(command)
        found = command.get_command(context, rest[0])
        assert found is not None, f"{page}: {line}"
        command, rest = found, rest[1:]
    known = {name for option in command.params for name in option.opts + option.secondary_opts}
    used = {word.split("=")[0] for word in rest if re.match(r"-{1,2}[a-z]", word)}
    assert used <= known | {"--help", "-h"}, f"{page}: {line}: {sorted(used - known)}"
