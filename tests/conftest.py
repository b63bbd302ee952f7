"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# How long an example takes is the machine's load, and no property of the code.
settings.register_profile("default", deadline=None)


def pytest_configure() -> None:
    """Commands print as into a pipe: pytest-xdist tells its workers a terminal's width."""
    os.environ.pop("COLUMNS", None)
