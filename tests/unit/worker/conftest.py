"""Releases and running workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.classifiers import DeviceRelease, Recipe, make_release
from tests.fakes.workers import Workers


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    pool = Workers(tmp_path)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> DeviceRelease:
    """Four points: two runtimes, two sizes, float and int8. Not to be changed by a test."""
    recipes = (
        Recipe("onnx", 16),
        Recipe("tflite", 16),
        Recipe("tflite-int8", 8),
        Recipe("onnx", 8),
    )
    return make_release(tmp_path_factory.mktemp("release"), recipes)
