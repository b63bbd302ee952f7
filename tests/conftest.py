"""What all tests share."""

from __future__ import annotations

import os


def pytest_configure() -> None:
    """Commands print as into a pipe: pytest-xdist tells its workers a terminal's width."""
    os.environ.pop("COLUMNS", None)
