"""The zoo: 28 small architectures x two formats x four schemes, each verified or refused.

``python benchmarks/zoo.py`` prints the table; ``--write`` puts it into ``docs/zoo.md``; ``--check``
exits 1 when a cell is neither verified nor refused for the reason written down here. The figure,
on the last line, is the number of cells that are neither.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.survey import Cell

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "zoo.md"
CHILD_TIMEOUT_S = 7200.0
"""For all networks in one format: two minutes of work, but the machine may do others."""
QUICK = ("MobileNetV2", "UNet", "MultiInput", "StreamingConv")
EXPECTED = {
    # ONNX Runtime has no kernel that quantizes what flows into these operators...
    ("GanGenerator", "onnx", "dynamic_wi8_afp32"): "ConvTranspose '2.weight' has float32 weights",
    ("TransposedConv", "onnx", "dynamic_wi8_afp32"): "ConvTranspose '2.weight' has float32",
    ("Gru", "onnx", "dynamic_wi8_afp32"): "has float32 weights",
    # ...and no integer one for recurrent layers, whose ONNX operators stay float.
    ("Gru", "onnx", "static_wi8_ai8"): "has float32 weights",
    ("Lstm", "onnx", "static_wi8_ai8"): "has float32 weights",
}
"""Refusals that are right, and a part of their message. Everything else must be verified."""

HEAD = """# The zoo

What each architecture becomes, in either format and under each scheme. Written by
`python benchmarks/zoo.py --write`; the networks are in `tests/zoo`, tiny and untrained, so the
size ratios are those of files of a few kilobytes, where the graph weighs as much as the weights,
and the latencies (median, one thread, this host) compare schemes with each other only.

A cell reads: signal to noise against PyTorch in dB / size against fp32 / milliseconds. Signal to
noise is that of the worst output. A cell in words was refused with that error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the survey, print, compare with what is expected."""
    options = _options(arguments)
    sys.path.insert(0, str(ROOT))
    from converters.survey import survey
    from tests.zoo import zoo

    known = zoo()
    names = options.only or (QUICK if options.quick else tuple(known))
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no such architecture: {', '.join(unknown)}; known: {', '.join(known)}")
        return 2
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cells = survey(
            {name: known[name] for name in names},
            folder,
            timeout_s=CHILD_TIMEOUT_S,
            progress=lambda text: print(text, file=sys.stderr, flush=True),
        )
    open_cells = [cell for cell in cells if not cell.verified and not _is_expected(cell)]
    page = table(cells)
    print(json.dumps([cell.as_dict() for cell in cells], indent=1) if options.json else page)
    if options.write:
        PAGE.write_text(f"{HEAD}\n{page}")
    for cell in open_cells:
        print(f"{cell.task} {cell.format} {cell.scheme}: {cell.code}: {cell.cause}")
    verified = sum(cell.verified for cell in cells)
    print(
        f"{len(cells)} cells: {verified} verified, "
        f"{len(cells) - verified - len(open_cells)} refused as expected, {len(open_cells)} open"
    )
    return 1 if options.check and open_cells else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--json", action="store_true", help="the cells as JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 when a cell is open")
    parser.add_argument("--write", action="store_true", help="write docs/zoo.md")
    parser.add_argument("--only", action="append", metavar="NAME", help="repeatable")
    parser.add_argument("--folder", type=Path, help="keep the files there; continues a broken run")
    return parser.parse_args(arguments)


def _is_expected(cell: Cell) -> bool:
    word = EXPECTED.get(cell.key)
    return word is not None and word in f"{cell.code} {cell.cause}"


def table(cells: Sequence[Cell]) -> str:
    """The cells as Markdown: a row per architecture and format, then the refusals in full."""
    schemes = list(dict.fromkeys(cell.scheme for cell in cells))
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        rows.setdefault((cell.task, cell.format), []).append(_text(cell))
    lines = [
        f"| architecture | format | {' | '.join(schemes)} |",
        "| --- " * (2 + len(schemes)) + "|",
    ]
    lines += [f"| {task} | {kind} | {' | '.join(row)} |" for (task, kind), row in rows.items()]
    refused = [cell for cell in cells if not cell.verified]
    if refused:
        lines += ["", "## Refused", ""]
        lines += [f"- {c.task}, {c.format}, {c.scheme}: {c.cause} {c.hint}" for c in refused]
    return "\n".join(lines) + "\n"


def _text(cell: Cell) -> str:
    if not cell.verified:
        return f"`{cell.code}`"
    return f"{cell.sqnr_db:.0f} / {cell.size_ratio:.2f} / {cell.latency_ms:.3f}"


if __name__ == "__main__":
    sys.exit(main())
