"""Every error code in the source has its section in docs/errors/, and the other way round."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_sdk import errors
from edge_sdk.errors import EdgeError
from tests.source_walk import ROOT, Strings, argument, called_name, calls, modules, parse, where

PAGES = ROOT / "docs" / "errors"

FAMILIES = {
    name: kind.family
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, EdgeError)
}

SPELLED_OUT = re.compile(r"error\[([a-z.-]+)\]")
"""A code printed without its class, where that cannot be imported."""


@dataclass
class Raised:
    """Codes found in one module."""

    codes: dict[str, str] = field(default_factory=dict)
    """Code to where it is raised."""
    unreadable: list[str] = field(default_factory=list)
    """Constructions whose slug cannot be read off the source."""


def raised_in(path: Path, families: dict[str, str]) -> Raised:
    tree, found = parse(path), Raised()
    strings = Strings(tree)
    for owner, call in calls(tree):
        family = families.get(called_name(call))
        if family is not None:
            slugs = strings.of(argument(call, 0, "slug"), owner)
            found.codes.update({f"{family}.{slug}": where(path, call) for slug in slugs})
            if not slugs:
                found.unreadable.append(where(path, call))
    return found


def error_families() -> dict[str, str]:
    """Family of every error class, subclasses outside errors.py included."""
    families = dict(FAMILIES)
    for path in modules():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                known = [families[base] for base in bases if base in families]
                if known:
                    families.setdefault(node.name, known[0])
    return families


@pytest.fixture(scope="module")
def raised() -> Raised:
    families, total = error_families(), Raised()
    for path in modules():
        found = raised_in(path, families)
        total.codes.update(found.codes)
        total.unreadable += found.unreadable
    return total


def sections() -> dict[str, str]:
    """Code to the text below its heading, of all pages."""
    found = {}
    for page in PAGES.glob("*.md"):
        if page.name != "README.md":
            for match in re.finditer(r"(?ms)^## (\S+)\n(.*?)(?=^## |\Z)", page.read_text()):
                found[match[1]] = match[2].strip()
                assert match[1].partition(".")[0] == page.stem, f"{match[1]} is on {page.name}"
    return found


def test_the_walk_finds_what_is_there(raised: Raised) -> None:
    assert "storage.disk-full" in raised.codes
    assert "contract.malformed" in raised.codes
    assert len(raised.codes) > 20


def test_every_slug_can_be_read_off_the_source(raised: Raised) -> None:
    assert raised.unreadable == []


def test_every_slug_is_lower_case_with_dashes(raised: Raised) -> None:
    assert [c for c in raised.codes if not re.fullmatch(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*", c)] == []


def test_every_code_has_its_section(raised: Raised) -> None:
    pages = sections()
    missing = [f"{c} ({at})" for c, at in sorted(raised.codes.items()) if c not in pages]
    assert not missing, "\n".join(missing)


def test_every_section_is_about_a_code_and_says_what_to_do(raised: Raised) -> None:
    pages = sections()
    written = {code for path in modules() for code in SPELLED_OUT.findall(path.read_text())}
    assert sorted(set(pages) - set(raised.codes) - written) == []
    assert [code for code, text in pages.items() if len(text) < 40] == []


def test_the_table_of_exit_codes_is_that_of_the_classes() -> None:
    rows = re.findall(r"(?m)^\| (\d+) \| \[(\w+)\]\(\2\.md\) \|", (PAGES / "README.md").read_text())
    kinds = [EdgeError, *EdgeError.__subclasses__()]
    assert {(int(code), family) for code, family in rows} >= {
        (kind.exit_code, kind.family) for kind in kinds if kind.__module__ == errors.__name__
    }
    assert sorted(family for _, family in rows if not (PAGES / f"{family}.md").is_file()) == []
