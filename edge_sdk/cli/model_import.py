"""``edge model import``: an existing ONNX or TFLite file, quantized, verified and packed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import gate_share, listed, needs
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.importing.run import Imported
    from edge_sdk.contracts.manifest import Preprocess


@click.command(
    name="import",
    help="Quantize, verify and pack the model FILE (.onnx, .tflite, or a microWakeWord's .json).",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", "folder", type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Samples, .npz: one array per input, and optionally 'labels'.",
)
@click.option("-p", "--profile", "profiles", multiple=True, help="Id or TOML file; repeatable.")
@click.option("--schemes", help="Comma-separated, e.g. static_wi8_ai8,wfp16; these must succeed.")
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    help="For open shapes: NAME=1,3,224,224, or 1,3,224,224 for the only input; repeatable.",
)
@click.option("--name", help="Of the model; the file's name by default.")
@click.option("--labels", type=click.Path(path_type=Path), help="Class names, one per line.")
@click.option("--mean", help="Per channel, in pixel units, e.g. 123.7,116.3,103.5.")
@click.option("--std", help="Per channel, in pixel units, e.g. 58.4,57.1,57.4.")
@click.option(
    "--openwakeword",
    "companions",
    type=click.Path(path_type=Path),
    help="FILE is a word of openWakeWord; the folder with melspectrogram.onnx and "
    "embedding_model.onnx.",
)
@click.option("--max-drop", default=0.01, show_default=True, help="Gate, 0..1.")
@click.option("--force", is_flag=True, help="Replace a folder that is not a conversion.")
@with_output
def import_file(out: Output, /, file: Path, profiles: tuple[str, ...], **options: Any) -> None:
    """Examine in a child process, quantize where possible, verify, gate, size, pack."""
    from edge_sdk.cli.model import _conversion_data

    needs("onnx", "onnxruntime", "ai_edge_litert", "ai_edge_quantizer")
    from converters.importing import ImportOptions, import_model
    from converters.importing.subject import Described, read_labels

    folder: Path = options["folder"] or Path("out") / file.stem
    chosen = ImportOptions(
        calibration=options["calibration"],
        described=Described(
            name=options["name"],
            labels=read_labels(options["labels"]) if options["labels"] else None,
            preprocess=_preprocess(options["mean"], options["std"]),
        ),
        shapes=dict(_shape(text) for text in options["shapes"]),
        schemes=listed(options["schemes"]),
        max_drop=gate_share(options, "max_drop"),
        force=options["force"],
    )
    listens = None
    if file.suffix == ".json" or options["companions"]:
        from converters.foreign.run import import_wakeword, read_wakeword

        listens = read_wakeword(file, options["companions"], chosen.described.labels or ())
    with out.progress("import", None) as bar:
        if listens is None:
            found = profiles or _default_profiles(file)
            imported = import_model(file, found, folder, options=chosen, progress=bar.step)
        else:
            found = profiles or _profiles_of(listens.format)
            imported = import_wakeword(listens, found, folder, options=chosen, progress=bar.step)
    _show(out, imported)
    out.result(_conversion_data(imported.outcome) | {"left_out": imported.left_out})
    out.next_step(
        f"open {folder / 'report.html'}",
        f"edge model bench {folder}",
        f"edge release create {folder} -o {folder}-release "
        f"--name {imported.outcome.conversion.task.name} --version 1",
    )


def _default_profiles(file: Path) -> list[str]:
    """The usual profiles, as far as they run the file's format."""
    from converters.inspect.model import format_of

    return _profiles_of(format_of(file))


def _profiles_of(kind: str) -> list[str]:
    from converters.importing.profiles import runs_format
    from edge_sdk.cli.model import DEFAULT_PROFILES

    return [name for name in DEFAULT_PROFILES if runs_format(name, kind)]


def _show(out: Output, imported: Imported) -> None:
    from edge_sdk.cli.model import _show_ladders

    outcome = imported.outcome
    score = "agree %" if outcome.conversion.task.kind == "generic" else "acc %"
    rows = [
        (
            f"{item.size} {item.scheme}",
            item.size_bytes,
            f"{item.accuracy * 100:.2f}",
            f"{item.sqnr_db:.1f}",
            f"{item.max_output_error:.3g}",
            f"{item.latency[min(item.latency)].median_ms:.3f}",
        )
        for item in outcome.measured
    ]
    columns = ("artifact", "bytes", score, "SQNR dB", "max error", "host ms")
    out.table("Verified against the file's own answers", columns, rows)
    if imported.noise:
        out.line("Measured on noise: give --calibration data.npz for figures that count.", "yellow")
    for scheme, reason in imported.left_out.items():
        out.line(f"left out {scheme}: {reason}", "yellow")
    _show_ladders(out, outcome)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, numbers = text.rpartition("=")
    try:
        shape = tuple(int(part) for part in numbers.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or len(shape) > 8 or not all(0 < size <= 1 << 20 for size in shape):
        raise UsageError(
            "bad-input-shape",
            f"{text!r} is not an input shape.",
            "Write NAME=1,3,224,224, or 1,3,224,224 for the only input.",
        )
    return name, shape


def _preprocess(mean: str | None, std: str | None) -> Preprocess | None:
    """Colour follows from the number of channels."""
    from edge_sdk.contracts.manifest import Preprocess

    if mean is None and std is None:
        return None
    means, stds = _numbers(mean or "0", "--mean"), _numbers(std or "1", "--std")
    channels = max(len(means), len(stds))
    if channels not in (1, 3) or len(means) not in (1, channels) or len(stds) not in (1, channels):
        raise _bad_preprocess("--mean and --std", "1 number for gray or 3 for RGB each")
    if not all(stds):
        raise _bad_preprocess("--std", "numbers other than 0")
    fill = channels if len(means) == 1 else 1
    wide = channels if len(stds) == 1 else 1
    if channels == 1:
        return Preprocess(color="gray", mean=means, std=stds)
    return Preprocess(color="rgb", mean=means * fill, std=stds * wide)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise _bad_preprocess(option, "numbers in pixel units separated by commas")
    return values


def _bad_preprocess(option: str, wanted: str) -> UsageError:
    return UsageError(
        "bad-preprocess",
        f"{option} takes {wanted}.",
        "For example --mean 127.5,127.5,127.5 --std 127.5,127.5,127.5.",
    )
