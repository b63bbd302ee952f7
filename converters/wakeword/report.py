"""The evaluation report: JSON for programs, Markdown and a DET curve for people."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from converters.wakeword.evaluate import (
    DetPoint,
    FalseAccepts,
    NearMisses,
    Recall,
    Rule,
    Trial,
    det_curve,
    false_accepts,
    near_misses_taken,
    recalls,
)
from edge_sdk.durable import DiskStorage

JSON: Final = "evaluation.json"
PAGE: Final = "evaluation.md"
PLOT: Final = "det.png"
_DAY_H: Final = 24.0


class Evaluation(msgspec.Struct, frozen=True):
    """What a wake word is worth, and how that is known."""

    phrase: str
    sounds: str
    """How it is pronounced."""
    rule: Rule
    budget_per_hour: float
    chosen_on: FalseAccepts
    """Sound that chose the cutoff; it is not what the claim rests on."""
    false_accepts: FalseAccepts
    """Sound that neither taught nor chose."""
    near_misses: NearMisses
    recall: tuple[Recall, ...]
    positives: str
    """Where the tested phrases come from."""
    det: tuple[DetPoint, ...]
    expected_by_chance_per_hour: float
    """How often an hour of talk holds these sounds, or nearly."""
    voices: int
    remarks: tuple[str, ...] = ()
    step_s: float = 0.02
    """Between two scores."""


def make_evaluation(
    *,
    phrase: str,
    sounds: str,
    rule: Rule,
    budget_per_hour: float,
    chosen_on: Trial,
    tested_on: Trial,
    positives: str,
    by_chance: float,
    voices: int,
    remarks: Sequence[str] = (),
) -> Evaluation:
    """Count everything."""
    return Evaluation(
        phrase=phrase,
        sounds=sounds,
        rule=rule,
        budget_per_hour=budget_per_hour,
        chosen_on=false_accepts(chosen_on, rule),
        false_accepts=false_accepts(tested_on, rule),
        near_misses=near_misses_taken(tested_on, rule),
        recall=recalls(tested_on, rule),
        positives=positives,
        det=det_curve(tested_on, rule),
        expected_by_chance_per_hour=by_chance,
        voices=voices,
        remarks=tuple(remarks),
        step_s=tested_on.step_s,
    )


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """The three files of a report.

    Raises:
        StorageError: the folder cannot be written.
    """
    storage = DiskStorage()
    data = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)
    storage.write(folder / JSON, data)
    storage.write(folder / PAGE, page(evaluation).encode())
    storage.write(folder / PLOT, det_plot(evaluation))


def page(found: Evaluation) -> str:
    """The report in Markdown."""
    rule, taken = found.rule, found.false_accepts
    how = (
        f"Pronounced {found.sounds}; learned from {found.voices} voices. Reported when the mean of "
        f"{rule.window_steps} scores (one every {found.step_s * 1000:.0f} ms) reaches "
        f"{rule.cutoff:.4f}, then not again for {rule.refractory_s:g} s."
    )
    chosen = (
        f"The cutoff was chosen on {found.chosen_on.hours:.2f} other hours "
        f"({found.chosen_on.count} false accepts there) for at most "
        f"{found.budget_per_hour:g} per hour. By chance an hour of talk holds these sounds, or "
        f"those with one taken for another, {found.expected_by_chance_per_hour:.2g} times."
    )
    chosen += _heaviest(found.chosen_on)
    near = found.near_misses
    if near.utterances:
        chosen += (
            f" Of {near.utterances} synthesised near misses, a sound or two away, {near.taken} "
            "were taken for the phrase."
        )
    lines = [
        *(f"# Wake word: {found.phrase}", "", how, ""),
        *("## False accepts", "", claim(taken, found.budget_per_hour), ""),
        *("| sound | hours | false accepts |", "|---|---|---|"),
        *(f"| {k.kind} | {k.hours:.2f} | {k.false_accepts} |" for k in taken.kinds),
        *(f"| together | {taken.hours:.2f} | {taken.count} |", "", chosen, ""),
        *("## Recall", "", f"Phrases: {found.positives}.", ""),
        "| condition | heard | recall % | 95 % interval | ms from the phrase's end: median, p95 |",
        "|---|---|---|---|---|",
        *(_recall_row(row) for row in found.recall),
        *("", f"![DET curve]({PLOT})", ""),
        "| false accepts per hour | " + " | ".join(row.condition for row in found.recall) + " |",
        "|---" * (1 + len(found.recall)) + "|",
        *_det_rows(found),
    ]
    if found.remarks:
        lines += ["", "## Remarks", "", *(f"- {remark}" for remark in found.remarks)]
    return "\n".join(lines) + "\n"


def _heaviest(taken: FalseAccepts) -> str:
    """The folder that decides the cutoff, if a small one does."""
    most = max(taken.kinds, key=lambda kind: kind.false_accepts, default=None)
    if most is None or 2 * most.false_accepts <= taken.count or 4 * most.hours >= taken.hours:
        return ""
    return (
        f" {most.false_accepts} of these {taken.count} are in {most.kind}, {most.hours:.2f} hours: "
        "listen to it. If it has the phrase, or is unlike what devices will hear, train without "
        "it, and the cutoff is looser."
    )


def claim(taken: FalseAccepts, budget: float) -> str:
    """What may be said of false accepts, and no more."""
    low, high = taken.per_hour_interval
    text = (
        f"{taken.count} in {taken.hours:.2f} hours: {taken.per_hour:.2f} per hour "
        f"({low:.2f} to {high:.2f} with 95 % confidence), {taken.per_hour * _DAY_H:.1f} per day "
        f"({low * _DAY_H:.1f} to {high * _DAY_H:.1f}). These hours allow the claim of fewer than "
        f"{taken.at_most_per_hour:.2f} per hour"
    )
    if taken.at_most_per_hour > budget:
        return text + (
            f", not of the budget of {budget:g}: that takes {needed_hours(budget):.1f} hours "
            "without a single one."
        )
    return text + f", within the budget of {budget:g}."


def needed_hours(budget: float) -> float:
    """Hours without a false accept that show a rate below the budget (rule of three)."""
    return 3.0 / budget if budget > 0 else float("inf")


def _recall_row(row: Recall) -> str:
    low, high = row.interval
    return (
        f"| {row.condition} | {row.heard} of {row.recordings} | {row.recall * 100:.1f} | "
        f"{low * 100:.1f} to {high * 100:.1f} | {row.latency_ms[0]:.0f}, {row.latency_ms[1]:.0f} |"
    )


def _det_rows(found: Evaluation) -> list[str]:
    rows = []
    for rate in (0.0, 0.1, 0.5, 1.0, 2.0, 5.0):
        point = recall_at(found.det, rate)
        if point is not None:
            shares = (f"{point.recall[row.condition] * 100:.1f}" for row in found.recall)
            rows.append(f"| at most {rate:g} | " + " | ".join(shares) + " |")
    return rows


def recall_at(det: Sequence[DetPoint], per_hour: float) -> DetPoint | None:
    """The loosest cutoff with at most so many false accepts per hour."""
    best: DetPoint | None = None
    for point in det:
        if point.false_accepts_per_hour > per_hour + 1e-9:
            break
        best = point
    return best


def det_plot(found: Evaluation) -> bytes:
    """Missed phrases against false accepts per hour, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    least = 0.3 / max(found.false_accepts.hours, 1e-3)
    rates = [max(point.false_accepts_per_hour, least) for point in found.det]
    for row in found.recall:
        missed = [(1.0 - point.recall[row.condition]) * 100 for point in found.det]
        axes.step(rates, missed, where="post", label=row.condition)
    axes.axvline(found.budget_per_hour, color="#888888", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel(
        f"false accepts per hour ({found.false_accepts.hours:.1f} h; the left edge is none)"
    )
    axes.set_ylabel("phrases missed, %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    axes.set_title(found.phrase, fontsize=9, loc="left")
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
