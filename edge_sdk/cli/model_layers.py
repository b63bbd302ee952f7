"""``edge model layers``: where the quantized files of a conversion lose their signal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

SHOWN = 15


@click.command(help="Show the noise of each layer of a conversion's quantized files.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--scheme", help="Only this one; all quantized ones by default.")
@click.option("--all", "everything", is_flag=True, help=f"All layers, not the worst {SHOWN}.")
@with_output
def layers(out: Output, /, folder: Path, scheme: str | None, everything: bool) -> None:
    """Runs the golden samples through each file and its float sibling, tensor by tensor."""
    from converters.layer_noise import layer_noise
    from converters.layer_pairs import quantized_pairs

    pairs = [pair for pair in quantized_pairs(folder) if scheme in (None, pair.scheme)]
    if not pairs:
        raise UsageError(
            "nothing-quantized",
            f"{folder} has no quantized file{f' of scheme {scheme}' if scheme else ''} with its "
            "float sibling.",
            "Convert with fp32 and a quantized scheme; see: edge model inspect FOLDER",
        )
    result: dict[str, Any] = {}
    with out.progress("layers", len(pairs)) as bar:
        for pair in pairs:
            found = layer_noise(pair.quantized, pair.source, pair.samples, exported=pair.exported)
            bar.step(pair.quantized.name)
            result[pair.quantized.name] = [asdict(layer) for layer in found]
            shown = found if everything else found[:SHOWN]
            out.table(
                f"{pair.quantized.name}, worst first",
                ("layer", "operator", "SQNR dB"),
                [(layer.name, layer.op, f"{layer.sqnr_db:.1f}") for layer in shown],
            )
    out.result(result)
    out.next_step(f"open {folder / 'report.html'}")
