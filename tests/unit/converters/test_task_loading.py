"""Every way a model file can be wrong has its own message, and none has a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.loading import load_task
from edge_sdk.errors import EdgeError, TaskError


def failure(ref: str) -> TaskError:
    with pytest.raises(EdgeError) as caught:
        load_task(ref)
    assert isinstance(caught.value, TaskError)
    return caught.value


def test_a_good_task_loads(tiny: str) -> None:
    task = load_task(tiny)
    assert (task.name, task.channels) == ("tiny", 1)
    assert task.resolutions == ((24, 24), (12, 12))
    assert task.labels == ("left", "middle", "right")


@pytest.mark.parametrize("ref", ["model.py", "model.py:", "model.py:two words", ":Task", ""])
def test_a_reference_needs_a_file_and_a_class(ref: str) -> None:
    assert failure(ref).code in ("task.bad-reference", "task.file-missing")


def test_a_missing_file_suggests_its_neighbours(write_task, tmp_path: Path) -> None:
    write_task()
    error = failure(f"{tmp_path}/modle.py:Variant")
    assert error.code == "task.file-missing"
    assert "'model.py'" in error.hint


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = 1\n\ndef f(:\n    pass\n")
    error = failure(f"{path}:Task")
    assert error.code == "task.syntax-error"
    assert "broken.py:3" in error.cause


def test_a_syntax_error_in_a_sibling_names_the_sibling(tmp_path: Path) -> None:
    (tmp_path / "edge_test_sibling.py").write_text("y = (\n")
    (tmp_path / "main_task.py").write_text("import edge_test_sibling\n")
    error = failure(f"{tmp_path}/main_task.py:Task")
    assert error.code == "task.syntax-error"
    assert "edge_test_sibling.py" in error.cause


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b"\x00" * 64])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.py"
    path.write_bytes(content)
    assert failure(f"{path}:Task").code in ("task.not-python", "task.syntax-error")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(b"PK\x03\x04")
    assert failure(f"{path}:Task").code == "task.not-python"


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    path = tmp_path / "needs.py"
    path.write_text("import a_package_that_is_not_there\n")
    error = failure(f"{path}:Task")
    assert error.code == "task.import-missing"
    assert "a_package_that_is_not_there" in error.hint


def test_an_exception_while_importing_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "raises.py"
    path.write_text("def f():\n    return 1 / 0\n\nf()\n")
    error = failure(f"{path}:Task")
    assert error.code == "task.user-code-failed"
    assert "ZeroDivisionError" in error.cause
    assert "raises.py:2" in error.cause


def test_a_missing_class_suggests_close_ones(write_task) -> None:
    ref = write_task().replace(":Variant", ":Varian")
    error = failure(ref)
    assert error.code == "task.class-missing"
    assert "'Variant'" in error.hint


def test_missing_members_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("class Bare:\n    name = 'bare'\n    def calibrate(self): ...\n")
    error = failure(f"{path}:Bare")
    assert error.code == "task.member-missing"
    assert "calibration" in error.cause and "evaluation" in error.cause


def test_a_misspelt_member_is_recognised(tmp_path: Path) -> None:
    members = "name = labels = preprocess = resolutions = build = example_input = evaluation = 1"
    path = tmp_path / "misspelt.py"
    path.write_text(f"class T:\n    {members}\n    def calibratoin(self): ...\n")
    assert "'calibratoin'" in failure(f"{path}:T").hint


def test_a_failing_constructor_names_the_line(write_task) -> None:
    error = failure(write_task("def __init__(self):\n    raise RuntimeError('no data set here')"))
    assert error.code == "task.user-code-failed"
    assert "no data set here" in error.cause


@pytest.mark.parametrize(
    "code",
    [
        "labels = ('same', 'same')",
        "labels = ('one',)",
        "labels = 'abc'",
        "labels = (1, 2)",
        "resolutions = ()",
        "resolutions = (32, 32)",
        "resolutions = ((32, 0),)",
        "resolutions = ((32, 32), (32, 32))",
        "preprocess = {'color': 'gray'}",
        "preprocess = Preprocess(color='rgb', mean=(0.0,), std=(1.0,))",
        "preprocess = Preprocess(color='gray', mean=(0.0,), std=(0.0,))",
        "name = 'has spaces'",
        "name = ''",
        "schemes = 'static_wi8_ai8'",
        "states = (1, 1)",
        "states = 'ab'",
        "states = ((1, -1),)",
        "states = ((1, 1, 1),)",
        "states = ((1, 1), (1, 2))",
        "states = ((1.0, 1),)",
        "integers = 'linear'",
        "integers = ('conv', ['linear'])",
    ],
)
def test_invalid_members_are_refused(write_task, code: str) -> None:
    assert failure(write_task(code)).code == "task.member-invalid"


def test_an_unknown_scheme_in_the_task_gets_a_suggestion(write_task) -> None:
    with pytest.raises(EdgeError) as caught:
        load_task(write_task("schemes = ('static_wi8_a8',)"))
    assert caught.value.code == "conversion.bad-scheme"
    assert "static_wi8_ai8" in caught.value.hint
