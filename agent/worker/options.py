"""What the loops that serve have in common."""

from __future__ import annotations

from dataclasses import dataclass

from agent.pipelines.config import PipelineConfig
from agent.worker.protocol import WorkerSpec
from edge_sdk.errors import ConfigError

WAIT_S = 0.1
"""Longest wait for a frame or a command, so that the heartbeat and commands stay prompt."""
ALARM_S = 0.1
"""A late frame is reported this soon after the last report: the governor waits for it."""
LOGGED_ERRORS = 5


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a loop is asked to do."""

    pipeline: PipelineConfig
    start_point: int
    hold: bool
    stats_interval_s: float
    cascade: bool = True


def serve_options(spec: WorkerSpec) -> ServeOptions:
    """Options from a worker's specification.

    Raises:
        ConfigError: ``config.source-incomplete`` without a pipeline.
    """
    if spec.pipeline is None:
        raise ConfigError(
            "source-incomplete",
            "A serving worker was given no pipeline.",
            "Set [pipeline.source] in the agent's configuration.",
        )
    interval_s = max(spec.stats_interval_s, 0.05)
    return ServeOptions(spec.pipeline, spec.start_point, spec.hold, interval_s, spec.cascade)
