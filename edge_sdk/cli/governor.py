"""``edge governor``: what the governor would do with a recorded trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_sdk.cli.output import Output, with_output

if TYPE_CHECKING:
    from agent.adapt.ladder import Rung
    from agent.adapt.policy import GovernorPolicy
    from agent.adapt.replay import Summary
    from agent.adapt.trace import Segment
    from edge_sdk.cli.governor_inputs import Picked

FILE = click.Path(path_type=Path)
MAX_MOVES = 40
"""Moves in the printed table; ``--json`` has all."""


@click.group()
def command() -> None:
    """The governor: which operating point a device runs on, and why."""


@command.command()
@click.argument("traces", type=FILE, nargs=-1, required=True, metavar="TRACE...")
@click.option("-p", "--profile", help="Temperatures of this device profile, and its ladder.")
@click.option("--ladder", type=FILE, help="Folder of a conversion or release with the ladder.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of [governor], such as dwell_up_s=5 or pin=1; repeatable.",
)
@click.option("--segment", type=int, help="Which stretch of the trace, from 1; default the last.")
@click.option(
    "--as-recorded",
    is_flag=True,
    help="Take every sample as it is, also where the replay stands on another point.",
)
@click.option(
    "--plot", "picture", type=FILE, help="PNG to write, of several its stem; default TRACE.png."
)
@with_output
def replay(
    out: Output,
    /,
    traces: tuple[Path, ...],
    profile: str | None,
    ladder: Path | None,
    changes: tuple[str, ...],
    segment: int | None,
    as_recorded: bool,
    picture: Path | None,
) -> None:
    """Replay TRACE through the governor, with any policy, profile or ladder.

    The governor is the agent's own. Where it stands on another point than the device did, latency
    and what follows from it are scaled by the points' costs; the pressure of others is as recorded.
    Several traces are those of one device's pipelines: the agent's arbiter decides for all.
    """
    from agent.adapt.governor import Governor
    from agent.adapt.replay import replay_together, summarise
    from edge_sdk.cli.governor_inputs import (
        pick_segments,
        pictures,
        resolve_ladder,
        resolve_policy,
    )
    from edge_sdk.cli.governor_plot import plot_replay

    picked = pick_segments(traces, segment)
    governors = [
        Governor(
            resolve_policy(one.segment.start.policy, profile, changes),
            resolve_ladder(one.segment, ladder, profile),
        )
        for one in picked
    ]
    targets = pictures(picked, picture)
    results = []
    with out.progress("replay", total=1 + len(picked)) as progress:
        together = list(zip((one.segment for one in picked), governors, strict=True))
        every = replay_together(together, feedback=not as_recorded)
        for one, governor, steps, target in zip(picked, governors, every, targets, strict=True):
            progress.step(f"plot {target.name}")
            plot_replay(steps, governor.ladder, one.segment.start.ladder, target)
            summary = summarise(steps, governor.ladder)
            results.append(_result(one.segment, governor.policy, summary, target))
            _show(out, one, summary, governor.ladder)
            out.line(f"Plot: {target}")
        progress.step()
    out.result(results[0] if len(results) == 1 else {"pipelines": results})
    out.next_step(
        f"edge governor replay {' '.join(map(str, traces))} --set dwell_up_s=30",
        f"open {targets[0]}",
    )


def _show(out: Output, picked: Picked, summary: Summary, rungs: Sequence[Rung]) -> None:
    segment, start = picked.segment, picked.segment.start
    who = f"{start.device_id} {start.pipeline}".rstrip()
    out.line(
        f"{who} ({start.profile}), {picked.which}: {summary.seconds:.0f} s, "
        f"{len(segment.ticks)} samples, {len(summary.moves)} moves",
        style="bold",
    )
    recorded = recorded_seconds(segment)
    out.table(
        "",
        ["point", "accuracy", "seconds", "share", "on the device"],
        [
            [
                rung.point,
                f"{rung.accuracy:.4f}",
                f"{seconds:.1f}",
                f"{100 * seconds / summary.seconds:.1f}%" if summary.seconds else "",
                f"{recorded.get(rung.point, 0.0):.1f}",
            ]
            for rung, seconds in zip(rungs, summary.seconds_at.values(), strict=True)
        ],
    )
    if summary.moves:
        out.table(
            "",
            ["second", "from", "to", "because"],
            [[f"{m.at_s:.1f}", m.origin, m.target, m.reason] for m in summary.moves[:MAX_MOVES]],
        )
    if len(summary.moves) > MAX_MOVES:
        out.line(f"... and {len(summary.moves) - MAX_MOVES} more; --json lists them.")
    out.line(
        f"Mean accuracy by time {summary.mean_accuracy:.4f}, at the top {summary.top_accuracy:.4f}"
    )


def recorded_seconds(segment: Segment) -> dict[str, float]:
    """Time at each point as the device recorded it."""
    seconds: dict[str, float] = {}
    ladder = segment.start.ladder
    for before, after in zip(segment.ticks, segment.ticks[1:], strict=False):
        if 0 <= before.index < len(ladder):
            name = ladder[before.index].point
            seconds[name] = seconds.get(name, 0.0) + max(0.0, after.t - before.t)
    return seconds


def _result(
    segment: Segment, policy: GovernorPolicy, summary: Summary, picture: Path
) -> dict[str, Any]:
    import msgspec

    return {
        "device_id": segment.start.device_id,
        "profile": segment.start.profile,
        "pipeline": segment.start.pipeline,
        "samples": len(segment.ticks),
        "policy": msgspec.to_builtins(policy),
        "recorded_seconds_at": recorded_seconds(segment),
        **msgspec.to_builtins(summary),
        "plot": str(picture),
    }
