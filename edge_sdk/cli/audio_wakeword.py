"""``edge audio wakeword``: train a wake word from its spelling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.model_options import cache_from, cache_options, needs, needs_converters
from edge_sdk.cli.output import Output, with_output
from edge_sdk.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.convert import Outcome
    from converters.wakeword.make import Made, Wishes
    from converters.wakeword.report import Evaluation

_FOLDERS = click.Path(path_type=Path)


@click.group(name="wakeword", help="Wake words from their spelling.")
def wakeword() -> None:
    """The group."""


@wakeword.command(help="Train a network that hears a phrase, judge it, convert it.")
@click.option("--phrase", required=True, help='As it is written, e.g. "hey robin".')
@click.option("-o", "--out", "folder", type=_FOLDERS, help="Folder to write.")
@click.option(
    "--background",
    multiple=True,
    type=_FOLDERS,
    help="Folder of sound without the phrase; repeatable. A fifth of its files only tests.",
)
@click.option(
    "--noise",
    multiple=True,
    type=_FOLDERS,
    help="Background without talk, to mix under the phrase, too; repeatable. Else noise is made.",
)
@click.option(
    "--negatives",
    multiple=True,
    type=_FOLDERS,
    help="Folder of sound without the phrase that only tests; repeatable.",
)
@click.option(
    "--recordings", multiple=True, type=_FOLDERS, help="Folder of the phrase, to learn from."
)
@click.option(
    "--positives", multiple=True, type=_FOLDERS, help="Folder of the phrase that only tests."
)
@click.option("--piper", multiple=True, type=_FOLDERS, help="Piper voice or a folder of them.")
@click.option("--text", type=_FOLDERS, help="English whose words the voices read.")
@click.option(
    "--embedding",
    type=_FOLDERS,
    help="A trunk trained before, or the folder with openWakeWord's melspectrogram.onnx and "
    "embedding_model.onnx, which heard many people; without it a trunk is trained.",
)
@click.option("--work", type=_FOLDERS, help="Where speech and embedding are kept for next time.")
@click.option("--budget", default=0.5, show_default=True, help="False accepts per hour, at most.")
@click.option("--quick", is_flag=True, help="A tenth of everything: to try it out.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "-p", "--profile", "profiles", multiple=True, help="Id or TOML file; every profile by default."
)
@click.option("--no-convert", is_flag=True, help="Stop after the report.")
@cache_options
@with_output
def train(out: Output, /, phrase: str, **options: Any) -> None:
    """Speak, learn, mine mistakes, choose a cutoff, report, convert."""
    needs("torch")
    from converters.wakeword.make import make, name_of

    if not 0 < options["budget"] <= 3600:
        raise UsageError("bad-budget", "--budget is out of range.", "Give 0.05 to 10 per hour.")
    if not options["no_convert"]:
        _check_profiles(options["profiles"])
    folder: Path = options["folder"] or Path("out") / name_of(phrase)
    with out.progress("wake word", None) as bar:
        made = make(
            phrase, folder, _wishes(options), bar.step, lambda text: out.line(text, "yellow")
        )
    _show(out, made.evaluation)
    data = _data(made, folder)
    next_step = f"edge model convert {folder / 'task.py'}:Task --weights {folder / 'weights.pt'}"
    if not options["no_convert"]:
        data |= _convert(out, folder, options)
        converted = folder / "converted"
        next_step = f"edge release create {converted} -o {folder}-1 --name {made.name} --version 1"
    out.result(data)
    out.next_step(f"open {folder / 'evaluation.md'}", next_step)


def _wishes(options: dict[str, Any]) -> Wishes:
    from converters.wakeword.make import Wishes
    from converters.wakeword.material import Sounds

    return Wishes(
        sounds=Sounds(
            background=options["background"],
            noise=options["noise"],
            negatives=options["negatives"],
            recordings=options["recordings"],
            positives=options["positives"],
        ),
        piper=options["piper"],
        text=options["text"],
        embedding=options["embedding"],
        work=options["work"],
        budget_per_hour=options["budget"],
        quick=options["quick"],
        seed=options["seed"],
    )


def _check_profiles(asked: tuple[str, ...]) -> None:
    """Before hours of training rather than after them."""
    needs_converters()
    from device_profiles.loader import load_profile

    for profile in asked:
        load_profile(profile)


def _convert(out: Output, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    with out.progress("convert", None) as bar:
        outcome = _converted(folder, options, bar.step)
    rows = [
        (item.path.name, f"{item.size_bytes / 1024:.0f}", f"{item.accuracy * 100:.1f}")
        for item in outcome.measured
    ]
    out.table("Converted", ("file", "KiB", "% within tolerance"), rows)
    return {"converted": str(folder / "converted"), "profiles": list(outcome.ladders)}


def _converted(folder: Path, options: dict[str, Any], stage: Callable[[str], None]) -> Outcome:
    from converters.convert import Options, convert
    from device_profiles.loader import profile_ids

    return convert(
        f"{folder / 'task.py'}:Task",
        options["profiles"] or profile_ids(),
        folder / "converted",
        options=Options(weights=folder / "weights.pt"),
        cache=cache_from(options),
        progress=stage,
    )


def _show(out: Output, found: Evaluation) -> None:
    from converters.wakeword.report import claim

    rows = [
        (
            row.condition,
            f"{row.heard}/{row.recordings}",
            f"{row.recall * 100:.1f}",
            f"{row.interval[0] * 100:.1f} to {row.interval[1] * 100:.1f}",
            f"{row.latency_ms[0]:.0f}",
        )
        for row in found.recall
    ]
    columns = ("condition", "heard", "recall %", "95 % interval", "median ms after the end")
    out.table(f"{found.phrase}: {found.positives}", columns, rows)
    out.line("False accepts: " + claim(found.false_accepts, found.budget_per_hour))


def _data(made: Made, folder: Path) -> dict[str, Any]:
    import msgspec

    return {"folder": str(folder), "evaluation": msgspec.to_builtins(made.evaluation)}
