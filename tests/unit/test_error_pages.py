"""Every error code in the source has its section in docs/errors/, and the other way round."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_sdk import errors
from edge_sdk.errors import EdgeError

ROOT = Path(__file__).parents[2]
PACKAGES = ("edge_sdk", "agent", "converters", "device_profiles")
PAGES = ROOT / "docs" / "errors"

FAMILIES = {
    name: kind.family
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, EdgeError)
}


@dataclass
class Raised:
    """Codes found in one module."""

    codes: dict[str, str] = field(default_factory=dict)
    """Code to where it is raised."""
    unreadable: list[str] = field(default_factory=list)
    """Constructions whose slug cannot be read off the source."""


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def raised_in(path: Path, families: dict[str, str]) -> Raised:
    tree = ast.parse(path.read_text(), str(path))
    found = Raised()
    for owner, call in calls(tree):
        family = families.get(called_name(call))
        if family is None:
            continue
        where = f"{path.relative_to(ROOT)}:{call.lineno}"
        slugs = list(slugs_of(argument(call, 0, "slug"), owner, tree))
        if not slugs:
            found.unreadable.append(where)
        found.codes.update({f"{family}.{slug}": where for slug in slugs})
    return found


def calls(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
    """Every call with the innermost function around it."""

    def visit(
        node: ast.AST, owner: ast.FunctionDef | None
    ) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield owner, child
            yield from visit(child, child if isinstance(child, ast.FunctionDef) else owner)

    yield from visit(tree, None)


def called_name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if len(call.args) > position else None


def slugs_of(
    value: ast.expr | None, owner: ast.FunctionDef | None, tree: ast.Module
) -> Iterator[str]:
    """Literal slugs, through conditional expressions and one helper that takes the slug."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from slugs_of(value.body, owner, tree)
        yield from slugs_of(value.orelse, owner, tree)
    elif isinstance(value, ast.Name) and owner is not None:
        names = [a.arg for a in (*owner.args.args, *owner.args.kwonlyargs)]
        if value.id not in names:
            return
        position = names.index(value.id) - (names[0] in ("self", "cls"))
        for caller, call in calls(tree):
            if called_name(call) == owner.name and caller is not owner:
                yield from slugs_of(argument(call, position, value.id), caller, tree)


def error_families() -> dict[str, str]:
    """Family of every error class, subclasses outside errors.py included."""
    families = dict(FAMILIES)
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
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
    missing = {code: where for code, where in sorted(raised.codes.items()) if code not in pages}
    assert missing == {}


def test_every_section_is_about_a_code_and_says_what_to_do(raised: Raised) -> None:
    pages = sections()
    assert sorted(set(pages) - set(raised.codes)) == []
    assert [code for code, text in pages.items() if len(text) < 40] == []


def test_the_table_of_exit_codes_is_that_of_the_classes() -> None:
    rows = re.findall(r"(?m)^\| (\d+) \| \[(\w+)\]\(\2\.md\) \|", (PAGES / "README.md").read_text())
    kinds = [EdgeError, *EdgeError.__subclasses__()]
    assert {(int(code), family) for code, family in rows} >= {
        (kind.exit_code, kind.family) for kind in kinds if kind.__module__ == errors.__name__
    }
    assert sorted(family for _, family in rows if not (PAGES / f"{family}.md").is_file()) == []
