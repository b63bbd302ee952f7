"""``edge model``: train, convert, bench, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_cascade import cascade
from edge_sdk.cli.model_distill import distill
from edge_sdk.cli.model_filter import filter_sound
from edge_sdk.cli.model_fit import fit
from edge_sdk.cli.model_graph import show_fusion, show_steps
from edge_sdk.cli.model_import import import_file
from edge_sdk.cli.model_layers import layers
from edge_sdk.cli.model_lint import lint
from edge_sdk.cli.model_matrix import matrix
from edge_sdk.cli.model_options import (
    cache_from,
    cache_options,
    gate_share,
    listed,
    needs,
    needs_converters,
    sizes,
)
from edge_sdk.cli.model_qat import qat
from edge_sdk.cli.model_quantize import (
    quantize_choices,
    quantize_options,
    rescue_data,
    show_rescue,
)
from edge_sdk.cli.model_search import search
from edge_sdk.cli.model_slim import convert_widths, slim
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.convert import Outcome
    from converters.inspect import ModelFacts
    from converters.train import Epoch

DEFAULT_PROFILES = ("rpi4", "rpi5", "jetson-orin-nano", "snapdragon-8-gen3", "x86-generic")


@click.group(name="model", help="Train, convert, measure and inspect models.")
def command() -> None:
    """The noun."""


command.add_command(fit)
command.add_command(import_file)
command.add_command(matrix)
command.add_command(lint)
command.add_command(layers)
command.add_command(qat)
command.add_command(distill)
command.add_command(slim)
command.add_command(search)
command.add_command(cascade)
command.add_command(filter_sound)


@command.command(help="Train the task TASK (path.py:Class) and write its weights.")
@click.argument("task")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("weights.pt"), show_default=True
)
@click.option("--seed", default=0, show_default=True, help="Initial weights and order of data.")
@click.option("--epochs", type=int, help="Instead of the task's own number.")
@with_output
def train(out: Output, /, task: str, epochs: int | None, seed: int, **options: Any) -> None:
    """Train at all of the task's resolutions at once."""
    path: Path = options["out"]
    needs("torch")
    from converters.loading import load_task
    from converters.module import save_weights
    from converters.train import train as run

    loaded = load_task(task)
    total = epochs or int(getattr(loaded.task, "epochs", 10))
    with out.progress(f"train {loaded.name}", total) as bar:

        def report(epoch: Epoch) -> None:
            bar.step(f"loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.4f}")
            out.line(
                f"epoch {epoch.number:3d}/{epoch.epochs}  loss {epoch.loss:.4f}  "
                f"held-out accuracy {epoch.accuracy * 100:6.2f} %  {epoch.seconds:.1f} s"
            )

        trained = run(loaded, seed=seed, epochs=epochs, report=report)
    size = save_weights(trained.module, path)
    for resolution, accuracy in trained.accuracy.items():
        out.line(f"{resolution}: {accuracy * 100:.2f} % on the held-out set", "bold")
    out.line(f"{path}: {size / 1024:.0f} KiB")
    epochs_data = [{"loss": e.loss, "accuracy": e.accuracy} for e in trained.history]
    out.result({"weights": str(path), "accuracy": trained.accuracy, "epochs": epochs_data})
    out.next_step(f"edge model convert {task} --weights {path}")


@command.command(help="Convert the task TASK (path.py:Class) for device profiles.")
@click.argument("task")
@click.option("-w", "--weights", type=click.Path(path_type=Path), help="State dict to load.")
@click.option("-o", "--out", "folder", type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "-p",
    "--profile",
    "profiles",
    multiple=True,
    help=f"Id or TOML file; repeatable. Default: {', '.join(DEFAULT_PROFILES)}.",
)
@click.option("--schemes", help="Comma-separated, e.g. static_wi8_ai8,wfp16.")
@click.option("--resolutions", help="Comma-separated, e.g. 32x32,24x24.")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(["tflite", "onnx"]), help="Repeatable."
)
@click.option("--runtime", help="Instead of each profile's preferred runtime.")
@click.option("--max-drop", default=0.01, show_default=True, help="Accuracy gate, 0..1.")
@click.option("--min-accuracy", default=0.0, help="Refuse a model that scores less, 0..1.")
@click.option("--force", is_flag=True, help="Replace a folder that is not a conversion.")
@click.option("--fold-preprocess", is_flag=True, help="Normalise in the graph; it takes pixels.")
@click.option(
    "--delta-friendly",
    type=click.Path(path_type=Path, file_okay=False),
    help="Earlier conversion whose int8 grid to keep, for smaller deltas from it.",
)
@click.option(
    "--friendly-drop",
    default=0.002,
    show_default=True,
    help="Accuracy that --delta-friendly may cost, 0..1.",
)
@click.option(
    "--slim", type=click.Path(path_type=Path), help="Every width of this slim.json (see slim)."
)
@quantize_options
@cache_options
@with_output
def convert(out: Output, /, task: str, profiles: tuple[str, ...], **options: Any) -> None:
    """Export, quantize, verify, gate and size."""
    needs_converters()
    from converters.convert import Options
    from converters.convert import convert as run

    folder: Path = options["folder"] or Path("out") / task.rpartition(":")[2].lower()
    if options["slim"] is not None:
        convert_widths(out, task, profiles or DEFAULT_PROFILES, folder, options)
        return
    chosen = Options(
        schemes=listed(options["schemes"]),
        resolutions=sizes(options["resolutions"]),
        formats=options["formats"] or ("tflite", "onnx"),
        runtime=options["runtime"],
        weights=options["weights"],
        max_drop=gate_share(options, "max_drop"),
        min_accuracy=gate_share(options, "min_accuracy"),
        delta_friendly=options["delta_friendly"],
        friendly_drop=gate_share(options, "friendly_drop"),
        force=options["force"],
        fold_preprocess=options["fold_preprocess"],
        **quantize_choices(options),
    )
    cache = cache_from(options)
    with out.progress("convert", None) as bar:
        outcome = run(
            task,
            profiles or DEFAULT_PROFILES,
            folder,
            options=chosen,
            cache=cache,
            progress=bar.step,
        )
    if chosen.weights is None:
        out.line("No --weights given: the module was converted as build() returns it.", "yellow")
    _show_conversion(out, outcome)
    show_rescue(out, outcome)
    out.result(_conversion_data(outcome) | rescue_data(outcome))
    out.next_step(
        f"open {folder / 'report.html'}",
        f"edge model bench {folder}",
        f"edge release create {folder} -o {folder}-release "
        f"--name {outcome.conversion.task.name} --version 1",
    )


@command.command(help="Measure the latency of a model file or a conversion on this machine.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-p", "--profile", help="Only the points on this profile's ladder.")
@click.option("-t", "--threads", default=1, show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="Time spent per file.")
@click.option("--runtime", help="Instead of the format's own.")
@with_output
def bench(out: Output, /, path: Path, profile: str | None, **options: Any) -> None:
    """Warm up, then time single inferences in the runtime that devices use."""
    from converters.bench import bench as run
    from converters.bench import model_files

    files = model_files(path, profile)
    if not 0 < options["seconds"] <= 600:
        raise UsageError("bad-seconds", "--seconds is out of range.", "Give 0.1 to 600.")
    with out.progress("bench", len(files)) as bar:
        rows = run(files, progress=bar.step, **options)
    out.table(
        f"{rows[0].runtime} on {rows[0].unit}, {rows[0].threads} thread(s), one image at a time",
        ("file", "p50 ms", "p95 ms", "load ms", "MiB"),
        [
            (
                row.file,
                f"{row.median_ms:.3f}",
                f"{row.p95_ms:.3f}",
                f"{row.load_ms:.1f}",
                f"{row.memory_mib:.1f}",
            )
            for row in rows
        ],
    )
    out.result([row.as_dict() for row in rows])
    out.next_step(f"edge model inspect {files[0]}")


@command.command(help="Show what is inside a model file or the files of a conversion.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--scheme", help="Fail unless the file is what this scheme claims.")
@with_output
def inspect(out: Output, /, path: Path, scheme: str | None) -> None:
    """Element types, operators, sizes, inputs and outputs."""
    from converters.bench import model_files
    from converters.inspect import check_claim, inspect_model
    from converters.schemes import parse_scheme

    files = model_files(path)
    facts = {file: inspect_model(file) for file in files}
    if scheme is not None:
        for file, found in facts.items():
            check_claim(found, parse_scheme(scheme), file)
    for file, found in facts.items():
        _show_facts(out, file, found, brief=len(files) > 1)
    if scheme is not None:
        out.line(f"It is what {scheme} claims.", "green")
    out.result(
        {str(file): found.as_dict() | _show_notes(out, file) for file, found in facts.items()}
    )
    out.next_step(f"edge model bench {path}")


def _show_conversion(out: Output, outcome: Outcome) -> None:
    for size, accuracy in outcome.reference.items():
        macs = f", {outcome.macs[size] / 1e6:.1f} M MACs" if size in outcome.macs else ""
        out.line(f"PyTorch at {size}: {accuracy * 100:.2f} % on the held-out set{macs}")
    for kind in dict.fromkeys(item.format for item in outcome.measured):
        _show_artifacts(out, outcome, kind)
    show_fusion(out, outcome)
    _show_ladders(out, outcome)


def _show_artifacts(out: Output, outcome: Outcome, kind: str) -> None:
    """Narrow on purpose: the table has to fit 80 columns."""
    from converters.report.page import baseline_bytes

    baseline = baseline_bytes(outcome)
    rows = [
        (
            f"{item.size} {item.scheme}",
            f"{item.size_bytes} {item.size_bytes / baseline[item.format, item.size]:.2f}x",
            f"{item.accuracy * 100:.2f} {item.scheme_drop * 100:+.2f}",
            f"{item.agreement * 100:.1f}",
            f"{item.max_output_error:.3f}",
            f"{item.latency[min(item.latency)].median_ms:.3f}",
        )
        for item in outcome.measured
        if item.format == kind
    ]
    title = {"tflite": "TFLite, verified on LiteRT", "onnx": "ONNX, verified on ONNX Runtime"}
    columns = ("artifact", "bytes, /fp32", "acc %, loss", "agree", "error", "host")
    out.table(f"{title[kind]} (host: ms, one thread)", columns, rows)


def _show_ladders(out: Output, outcome: Outcome) -> None:
    from converters.report.page import band

    rows = []
    for name, ladder in outcome.ladders.items():
        left = [name, ladder.runtime] if len(ladder.points) > 1 else [f"{name} {ladder.runtime}"]
        for index, point in enumerate(ladder.points):
            rows.append(
                (
                    left[index] if index < len(left) else "",
                    f"{point.height_px}x{point.width_px} {point.scheme}",
                    f"{point.accuracy * 100:.2f}",
                    band(point),
                    f"{point.host_latency_ms:.3f}",
                )
            )
    columns = ("profile", "operating point", "acc %", "predicted ms", "host")
    out.table("Ladders, most faithful first", columns, rows)


def _conversion_data(outcome: Outcome) -> dict[str, Any]:
    import msgspec

    return {
        "folder": str(outcome.out),
        "report": str(outcome.out / "report.html"),
        "reference": outcome.reference,
        "fusion": outcome.fusion.as_dict() if outcome.fusion else None,
        "artifacts": [
            {
                "file": f"artifacts/{item.path.name}",
                "digest": item.digest,
                "format": item.format,
                "scheme": item.scheme,
                "resolution": item.size,
                "bytes": item.size_bytes,
                "accuracy": item.accuracy,
                "loss": item.scheme_drop,
                "agreement": item.agreement,
                "max_output_error": item.max_output_error,
                "host_latency_ms": item.latency[min(item.latency)].median_ms,
                "memory_mib": item.memory_mib,
            }
            for item in outcome.measured
        ],
        "ladders": msgspec.to_builtins(outcome.conversion.ladders),
    }


def _show_facts(out: Output, file: Path, facts: ModelFacts, *, brief: bool) -> None:
    out.line(f"{file.name}: {facts.format}, {facts.size_bytes:,} bytes", "bold")
    for kind, specs in (("input", facts.inputs), ("output", facts.outputs)):
        for spec in specs:
            scale = f", scale {spec.scale:.6g}, zero {spec.zero_point}" if spec.scale else ""
            out.line(f"  {kind} {spec.name}: {spec.dtype}{list(spec.shape)} {spec.layout}{scale}")
    out.line("  ops: " + ", ".join(f"{op} {count}" for op, count in facts.ops.items()))
    show_steps(out, file)
    out.line("  constants: " + ", ".join(f"{kind} {n:,} B" for kind, n in facts.constants.items()))
    if brief:
        return
    out.table(
        "",
        ("layer", "op", "weights", "elements", "activations"),
        [
            (layer.name, layer.op, layer.weight_dtype, layer.weight_elements,
             layer.activation_dtype)
            for layer in facts.layers
        ],
    )  # fmt: skip


def _show_notes(out: Output, file: Path) -> dict[str, Any]:
    """What the file says about itself beyond its graph."""
    import msgspec

    from converters.metadata import read_notes

    notes = read_notes(file)
    if notes is None:
        return {"notes": None}
    labels = f", {len(notes.labels)} labels" if notes.labels else ""
    scheme = f", {notes.scheme}" if notes.scheme else ""
    out.line(f"{file.name} says: {notes.name}{scheme}{labels}")
    if notes.preprocess is not None:
        p = notes.preprocess
        out.line(f"  input: {p.color}, (pixel - {list(p.mean)}) / {list(p.std)}")
    return {"notes": msgspec.to_builtins(notes)}
