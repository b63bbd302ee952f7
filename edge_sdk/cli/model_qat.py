"""``edge model qat``: quantization-aware training, then a verified int8 conversion."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import cache_from, cache_options
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from converters.qat.run import QatOutcome
    from converters.train import Epoch


@click.command(help="Train TASK (path.py:Class) on the int8 grid and convert it to int8.")
@click.argument("task")
@click.option("-w", "--weights", type=click.Path(path_type=Path), help="Trained float weights.")
@click.option("-o", "--out", "folder", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--epochs", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Order and augmentation of the data.")
@click.option(
    "--ranges",
    type=click.Choice(["observed", "learned"]),
    default="observed",
    show_default=True,
    help="Activations' ranges follow the data, or are trained.",
)
@click.option("--learning-rate", type=float, help="Default: a tenth of the task's own.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), help="Convert this result; train nothing."
)
@click.option("-p", "--profile", "profiles", multiple=True, help="Id or TOML file; repeatable.")
@click.option("--max-drop", default=0.01, show_default=True, help="Accuracy gate, 0..1.")
@click.option("--force", is_flag=True, help="Replace a folder that is not a conversion.")
@cache_options
@with_output
def qat(out: Output, /, task: str, profiles: tuple[str, ...], **options: Any) -> None:
    """Observe, train, freeze, export to both formats, verify, gate, compare."""
    from edge_sdk.cli.model import DEFAULT_PROFILES, _conversion_data, _show_conversion
    from edge_sdk.cli.model_options import gate_share, needs

    needs("torch", "onnx", "onnxruntime", "litert_torch")
    from converters.convert import Options
    from converters.qat.run import qat as run

    folder: Path = options["folder"] or Path("out") / f"{task.rpartition(':')[2].lower()}-qat"
    rate = options["learning_rate"]
    if rate is not None and not 0 < rate <= 1:
        raise UsageError("bad-rate", f"--learning-rate {rate} is out of range.", "Give e.g. 3e-4.")
    chosen = Options(
        weights=options["weights"], max_drop=gate_share(options, "max_drop"), force=options["force"]
    )
    if options["weights"] is None and options["checkpoint"] is None:
        out.line("No --weights: training starts from what build() returns.", "yellow")
    with out.progress("qat", None) as bar:

        def report(epoch: Epoch) -> None:
            bar.step(f"epoch {epoch.number}, accuracy {epoch.accuracy:.4f}")
            out.line(
                f"epoch {epoch.number:3d}/{epoch.epochs}  loss {epoch.loss:.4f}  held-out "
                f"accuracy on the int8 grid {epoch.accuracy * 100:6.2f} %  {epoch.seconds:.1f} s"
            )

        found = run(
            task,
            profiles or DEFAULT_PROFILES,
            folder,
            options=chosen,
            epochs=options["epochs"],
            seed=options["seed"],
            ranges=options["ranges"],
            learning_rate=rate,
            checkpoint=options["checkpoint"],
            cache=cache_from(options),
            report=report,
            progress=bar.step,
        )
    _show_training(out, found)
    _show_conversion(out, found.outcome)
    _show_parity(out, found)
    out.result(
        _conversion_data(found.outcome)
        | {
            "checkpoint": str(found.checkpoint),
            "parity": [asdict(item) for item in found.parity],
            "training": _training_data(found),
        }
    )
    out.next_step(
        f"open {folder / 'report.html'}",
        f"edge model bench {folder}",
        f"edge release create {folder} -o {folder}-release "
        f"--name {found.outcome.conversion.task.name} --version 1",
    )


def _show_training(out: Output, found: QatOutcome) -> None:
    trained = found.trained
    if trained is None:
        return
    rows = [
        (
            size,
            f"{trained.float_accuracy[size] * 100:.2f}",
            f"{trained.calibrated_accuracy[size] * 100:.2f}",
            f"{accuracy * 100:.2f}",
        )
        for size, accuracy in trained.accuracy.items()
    ]
    columns = ("resolution", "float acc %", "int8 before", "int8 trained")
    out.table("Training on the int8 grid", columns, rows)


def _show_parity(out: Output, found: QatOutcome) -> None:
    for item in found.parity:
        out.line(
            f"{item.size}: ONNX and TFLite share {item.shared_scales} quantizations "
            f"({item.only_onnx} only in ONNX, {item.only_tflite} only in TFLite); outputs differ "
            f"by at most {item.largest_lsb} step, in {item.different_share * 100:.2f} % of values"
        )
    out.line(f"The trained grid: {found.checkpoint}")


def _training_data(found: QatOutcome) -> dict[str, Any] | None:
    trained = found.trained
    if trained is None:
        return None
    return {
        "float_accuracy": trained.float_accuracy,
        "calibrated_accuracy": trained.calibrated_accuracy,
        "accuracy": trained.accuracy,
        "epochs": [{"loss": e.loss, "accuracy": e.accuracy} for e in trained.history],
    }
