"""Reads this repository's own source: modules, functions, and the strings a call may be given."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("edge_sdk", "agent", "converters", "device_profiles")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    """Python files of the four packages."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def where(path: Path, node: ast.expr | ast.stmt) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def called_name(call: ast.Call) -> str:
    """Last part of the called name; empty for a computed one."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if len(call.args) > position else None


def calls(tree: ast.Module) -> Iterator[tuple[Function | None, ast.Call]]:
    """Every call with the innermost function around it."""

    def visit(node: ast.AST, owner: Function | None) -> Iterator[tuple[Function | None, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield owner, child
            yield from visit(child, child if isinstance(child, Function) else owner)

    yield from visit(tree, None)


@dataclass(frozen=True)
class Strings:
    """Works out the literal strings an expression can be, within one module."""

    tree: ast.Module

    def of(self, value: ast.expr | None, owner: Function | None) -> list[str]:
        """All values, or nothing when one of them cannot be read off the source."""
        try:
            return sorted(set(self._of(value, owner, depth=4)))
        except LookupError:
            return []

    def _of(self, value: ast.expr | None, owner: Function | None, depth: int) -> Iterator[str]:
        match value:
            case _ if depth < 0:
                raise LookupError
            case ast.Constant(value=str(text)):
                yield text
            case ast.IfExp(body=body, orelse=orelse):
                yield from self._of(body, owner, depth)
                yield from self._of(orelse, owner, depth)
            case ast.JoinedStr(values=parts):
                pieces = [
                    list(
                        self._of(p.value if isinstance(p, ast.FormattedValue) else p, owner, depth)
                    )
                    for p in parts
                ]
                yield from ("".join(combination) for combination in itertools.product(*pieces))
            case ast.Name(id=name) if owner is not None:
                yield from self._named(name, owner, depth - 1)
            case _:
                raise LookupError

    def _named(self, name: str, owner: Function, depth: int) -> Iterator[str]:
        """A parameter through the function's callers, a local through what it is bound to."""
        parameters = [a.arg for a in (*owner.args.args, *owner.args.kwonlyargs)]
        if name in parameters:
            position = parameters.index(name) - (parameters[0] in ("self", "cls"))
            passed = [
                (argument(call, position, name), caller)
                for caller, call in calls(self.tree)
                if called_name(call) == owner.name and caller is not owner
            ]
        else:
            passed = [(value, owner) for value in _bindings(name, owner)]
        if not passed:
            raise LookupError(name)
        for value, around in passed:
            yield from self._of(value, around, depth)


def _bindings(name: str, owner: Function) -> Iterator[ast.expr]:
    """Expressions a local name is assigned, or takes from a literal table it loops over."""
    for node in ast.walk(owner):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield value
            case ast.For(target=ast.Tuple(elts=targets), iter=ast.Tuple(elts=rows)):
                names = [t.id if isinstance(t, ast.Name) else "" for t in targets]
                if name in names:
                    for row in rows:
                        if isinstance(row, ast.Tuple):
                            yield row.elts[names.index(name)]
