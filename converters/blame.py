"""Which layer of the user's module an exporter stumbled over.

Exporters name the operator they cannot translate, but not where it comes from. The exported
program knows: each node carries the stack of modules and the source line that created it.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from converters.usercode import first_line
from edge_sdk.errors import ConversionError

_OPERATOR = (
    re.compile(r"No ONNX function found for <OpOverload\(op='(?:\w+)\.(?P<op>\w+)'"),
    re.compile(r"Lowering not found: (?:\w+)\.(?P<op>\w+)"),
    re.compile(r"failed to legalize operation '(?P<op>[\w.]+)'"),
)
_DATA_DEPENDENT = re.compile(r"data-dependent|Abstract tracer value|concrete value is expected")
_COMPLEX = re.compile(r"complex<f\d+>|torch\.complex\d+|ComplexFloat")
_CLASH = re.compile(r"Initializer '(?P<name>[^']+)' is already registered")
_ALIASES = {"sort": ("topk", "argsort")}
"""PyTorch's names of what a format calls otherwise."""
_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_LIBRARY = ("site-packages", "dist-packages", "<frozen", "<string>")

T = TypeVar("T")
Example = torch.Tensor | tuple[torch.Tensor, ...]
"""One sample: a tensor, or one per input."""


def as_inputs(example: Example) -> tuple[torch.Tensor, ...]:
    """One tensor per input of the module."""
    return example if isinstance(example, tuple) else (example,)


def exporting(what: str, module: nn.Module, example: Example, export: Callable[[], T]) -> T:
    """Run an exporter, and explain its failure in terms of the user's module.

    Args:
        what: the format, e.g. ``ONNX``.
        module: the user's module, for tracing where an operator comes from.
        example: one sample.
        export: the exporter's call.

    Raises:
        ConversionError: ``conversion.unsupported-op`` naming operator, layer and line;
            ``conversion.data-dependent``, ``conversion.complex-tensor``,
            ``conversion.export-failed``.
    """
    try:
        return export()
    except Exception as error:
        text = "\n".join(str(link) for link in _chain(error))
        operator = unsupported_operator(text)
        if operator is not None:
            raise ConversionError(
                "unsupported-op",
                f"{what} has no {operator}, which {layer_of(operator, module, example)} uses.",
                "Express that layer by other operators, or move it out of the module.",
            ) from error
        raise _explained(what, module, error, text) from error


def _explained(what: str, module: nn.Module, error: Exception, text: str) -> ConversionError:
    """The error for a module that does not get as far as an operator without translation."""
    at = _at(module, error, text)
    detail = _plain(first_line(_root(error)))
    if _DATA_DEPENDENT.search(text):
        return ConversionError(
            "data-dependent",
            f"The module cannot be exported to {what}{at}: its control flow or shapes depend on "
            f"values. {detail}",
            "Compute both branches and choose with torch.where, or decide outside the module.",
        )
    if _COMPLEX.search(text):
        at = at or _complex_layer(module)
        return ConversionError(
            "complex-tensor",
            f"The module cannot be exported to {what}{at}: {what} has no complex numbers.",
            "Carry real and imaginary part apart; write a Fourier transform as a product with a "
            "fixed DFT matrix (cosines and sines), which is exact and fast.",
        )
    clash = _CLASH.search(text)
    if clash:
        return ConversionError(
            "export-failed",
            f"The module cannot be exported to {what}: the exporter makes a constant called "
            f"{clash['name']!r} of its own.",
            f"Rename the parameter or buffer {clash['name']!r}.",
        )
    return ConversionError(
        "export-failed",
        f"The module cannot be exported to {what}{at}: {detail}",
        "Control flow must not depend on values; shapes must follow from the input's shape.",
    )


def refuse_operators(
    what: str, module: nn.Module, example: Example, operators: Iterable[str]
) -> None:
    """Refuse operators that are in the file but that no runtime loads.

    Args:
        what: the format.
        module: the user's module.
        example: one sample.
        operators: names as the file has them; ``STABLEHLO_SORT`` and its like are refused.

    Raises:
        ConversionError: ``conversion.unsupported-op``.
    """
    for operator in operators:
        if operator.startswith("STABLEHLO_"):
            name = operator.removeprefix("STABLEHLO_").lower()
            found = next(
                (
                    place
                    for alias in (*_ALIASES.get(name, ()), name)
                    if (place := layer_of(alias, module, example)) != "the module"
                ),
                "the module",
            )
            raise ConversionError(
                "unsupported-op",
                f"{what} runtimes have no {name}, which {found} uses.",
                "Express that layer by other operators, or move it out of the module.",
            )


def unsupported_operator(text: str) -> str | None:
    """The operator an exporter's message complains about, without its namespace."""
    for pattern in _OPERATOR:
        match = pattern.search(text)
        if match:
            return match["op"]
    return None


def layer_of(operator: str, module: nn.Module, example: Example) -> str:
    """Name, class and source line of the layer that creates ``operator``."""
    try:
        program = torch.export.export(module, as_inputs(example)).run_decompositions()
    except Exception:  # noqa: BLE001 - the explanation must not fail harder than the export
        return "the module"
    wanted = operator.lower().lstrip("_")
    for node in program.graph.nodes:
        target = str(node.target).lower()
        if node.op == "call_function" and wanted in target:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            name, kind = stack[-1] if stack else ("", type(module).__name__)
            kind_name = str(kind).rsplit(".", 1)[-1]
            place = _user_line(node.meta.get("stack_trace") or "")
            return f"layer {name or 'forward'!r} ({kind_name}{place})"
    return "the module"


def _complex_layer(module: nn.Module) -> str:
    """`` at layer 'NAME' (Class)`` of the layer that holds a complex constant, where one does."""
    for name, layer in module.named_modules():
        own = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        if any(tensor.is_complex() for tensor in own):
            return f" at layer {name or 'forward'!r} ({type(layer).__name__})"
    return ""


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(links) < 16:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def _root(error: BaseException) -> BaseException:
    """The innermost exception that was raised from another on purpose."""
    link = error
    while link.__cause__ is not None:
        link = link.__cause__
    return link


def _at(module: nn.Module, error: BaseException, text: str) -> str:
    """`` at layer 'NAME' (Class, file:line)`` of the user's code, where it can be found."""
    frames = traceback.extract_tb(_root(error).__traceback__)
    lines = [f'File "{frame.filename}", line {frame.lineno}' for frame in frames]
    place = _user_place(text) or _user_place("\n".join(lines))
    if place is None:
        return ""
    file, line = place
    for name, layer in reversed(list(module.named_modules())):
        if _holds(layer, file, line):
            kind = type(layer).__name__
            return f" at layer {name or 'forward'!r} ({kind}, {Path(file).name}:{line})"
    return f" at {Path(file).name}:{line}"


def _holds(layer: nn.Module, file: str, line: int) -> bool:
    """Whether a source line is part of the layer's class."""
    kind = type(layer)
    try:
        source, start = inspect.getsourcelines(kind)
        return inspect.getsourcefile(kind) == file and start <= line < start + len(source)
    except (OSError, TypeError):
        return False


def _user_line(stack: str) -> str:
    """``, file.py:12`` of the deepest frame that is not a library's."""
    place = _user_place(stack)
    return f", {Path(place[0]).name}:{place[1]}" if place else ""


def _user_place(stack: str) -> tuple[str, int] | None:
    """File and line of the deepest frame that is not a library's."""
    own = Path(__file__).parent
    found = [
        match
        for match in _LINE.finditer(stack)
        if not any(part in match["file"] for part in _LIBRARY)
        and own not in Path(match["file"]).parents
        and "/torch/" not in match["file"]
        and "/lib/python" not in match["file"]
    ]
    return (found[-1]["file"], int(found[-1]["line"])) if found else None


def _plain(text: str) -> str:
    """Without terminal colours and non-ASCII marks."""
    return re.sub(r"\x1b?\[\d+m", "", text)
