"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_walk import ROOT, Function, called_name, calls, modules, parse, where

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
HEAVY = {
    "alembic",
    "click",
    "converters",
    "httpx",
    "jax",
    "matplotlib",
    "onnx",
    "rich",
    "sqlalchemy",
    "starlette",
    "torch",
}
"""What must never be loaded on a device."""
AGENT_MUST_NOT_SEE = {"edge_sdk.cli", "edge_sdk.client", "edge_sdk.demo", "edge_sdk.server"}
PRINTING = {ROOT / "edge_sdk" / "cli" / "output.py", ROOT / "agent" / "cli" / "output.py"}
MIGRATIONS = ROOT / "edge_sdk" / "server" / "db" / "migrations"
"""Their functions are lists of tables and as long as the schema."""
EMPTY_ENVIRONMENT = {"PATH": os.defpath, "PYTHONWARNINGS": "error"}


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_names(package: str) -> list[str]:
    return [dotted(p) for p in modules() if dotted(p).partition(".")[0] == package]


def loaded_after(imports: list[str]) -> dict[str, list[str]]:
    """Modules a fresh interpreter has loaded after each import, in turn."""
    program = (
        "import sys, json, importlib\nseen = {}\n"
        f"for name in {imports!r}:\n"
        "    importlib.import_module(name)\n"
        "    seen[name] = sorted(sys.modules)\n"
        "print(json.dumps(seen))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=EMPTY_ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_agent_stays_small_in_every_module() -> None:
    names = [name for name in module_names("agent") if not name.endswith("__main__")]
    assert len(names) > 20
    for name, loaded in loaded_after(names).items():
        heavy = {module.partition(".")[0] for module in loaded} & HEAVY
        assert not heavy, f"import {name} loads {sorted(heavy)}"
        foreign = {".".join(module.split(".")[:2]) for module in loaded} & AGENT_MUST_NOT_SEE
        assert not foreign, f"import {name} loads {sorted(foreign)}"


def test_import_agent_alone_loads_no_third_party_package() -> None:
    (loaded,) = loaded_after(["agent"]).values()
    standard = set(sys.stdlib_module_names) | {"agent", "__main__"}
    top = {name.partition(".")[0] for name in loaded}
    # Editable installs and coverage put finders and start-up files of their own there.
    third_party = {name for name in top - standard if not name.startswith("_")}
    assert third_party & (HEAVY | {"numpy", "psutil", "paho", "msgspec"}) == set()


def test_the_command_line_starts_without_heavy_packages() -> None:
    program = (
        "import sys, json; sys.argv = ['edge', '--help']\n"
        "from edge_sdk.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=EMPTY_ENVIRONMENT | {"LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    top = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert top & (HEAVY - {"click"} | {"numpy", "agent"}) == set()


def test_every_module_imports_in_an_empty_environment_without_side_effects() -> None:
    """No module reads the environment, starts a thread or warns when it is imported."""
    names = [
        name
        for package in ("agent", "device_profiles")
        for name in module_names(package)
        if not name.endswith("__main__")
    ] + [f"edge_sdk.{part}" for part in ("contracts", "errors", "durable", "bundle", "runtime")]
    program = (
        "import importlib, threading\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert threading.active_count() == 1, name"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=EMPTY_ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_the_direction_of_imports_holds() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed in this environment")
    done = subprocess.run(
        [command, "--no-cache"], capture_output=True, text=True, timeout=240, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Lines of the body, its docstring not counted."""
    body = function.body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_stay_short(record_property: pytest.RecordProperty) -> None:
    files = {path: len(path.read_text().splitlines()) for path in modules()}
    bodies = {
        f"{where(path, function)} {function.name}": length(function)
        for path in files
        if MIGRATIONS not in path.parents
        for function in functions(parse(path))
    }
    longest_file = max(files, key=lambda path: files[path])
    longest_function = max(bodies, key=lambda name: bodies[name])
    record_property("longest_file", f"{longest_file.relative_to(ROOT)}: {files[longest_file]}")
    record_property("longest_function", f"{longest_function}: {bodies[longest_function]}")
    print(f"longest file {longest_file.relative_to(ROOT)}: {files[longest_file]} lines")
    print(f"longest function {longest_function}: {bodies[longest_function]} lines")
    assert {str(p): n for p, n in files.items() if n > MAX_FILE_LINES} == {}
    assert {name: n for name, n in bodies.items() if n > MAX_FUNCTION_LINES} == {}


def test_only_the_output_modules_print() -> None:
    printing = [
        where(path, call)
        for path in modules()
        if path not in PRINTING
        for _, call in calls(parse(path))
        if isinstance(call.func, ast.Name) and called_name(call) == "print"
    ]
    assert printing == []


def test_nothing_is_checked_by_assert() -> None:
    """``python -O`` removes asserts; a check of input would go with them."""
    asserts = [
        where(path, node)
        for path in modules()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules()
        if path.read_text().strip() and not ast.get_docstring(parse(path))
    ]
    assert silent == []


def test_every_public_class_and_function_says_what_it_does() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    silent = [
        f"{where(path, node)} {node.name}"
        for path in modules()
        for node in parse(path).body
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize("package", ["edge_sdk", "agent", "converters", "device_profiles"])
def test_every_package_is_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_every_decision_record_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert records
    assert [name for name in records if f"({name})" not in index] == []
    numbers = [name.partition("-")[0] for name in records]
    assert len(numbers) == len(set(numbers))


def test_the_map_names_folders_that_exist() -> None:
    named = re.findall(r"(?m)^\| `([\w/]+/)` \|", (ROOT / "AGENTS.md").read_text())
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).is_dir()] == []
