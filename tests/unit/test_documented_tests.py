"""A test that a page names as evidence exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFINED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
}
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])


def named(page: Path) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", page.read_text()))


def test_the_attacks_have_tests() -> None:
    assert len(named(ROOT / "docs" / "security.md")) >= 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    assert named(page) <= DEFINED
