"""What a serving loop tells the supervisor, whatever it serves: points, and decisions batched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.worker.channel import Channel
from agent.worker.memory import rss_mib
from agent.worker.meter import Meter
from agent.worker.options import ServeOptions
from agent.worker.protocol import PointChanged, PointRefused, Ready, Results
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.errors import ContractError, EdgeError
from edge_sdk.runtime.engine import Engine


class Batch:
    """Decisions that wait to be sent together.

    Args:
        channel: to the supervisor.
        options: how many, and for how long.
        meter: counts what could not be sent.
        clock: monotonic seconds.
    """

    def __init__(
        self, channel: Channel, options: ServeOptions, meter: Meter, clock: Callable[[], float]
    ) -> None:
        self._channel, self._publish = channel, options.pipeline.publish
        self._meter, self._clock = meter, clock
        self._decisions: list[Decision] = []
        self._due = 0.0

    def add(self, decision: Decision, point: int) -> None:
        """One more decision of a point; sends the batch when it is full."""
        if not self._decisions:
            self._due = self._clock() + self._publish.max_interval_s
        self._decisions.append(decision)
        if len(self._decisions) >= self._publish.batch:
            self.flush(point)

    def flush_due(self, now: float, point: int) -> None:
        """Send what has waited long enough."""
        if now >= self._due:
            self.flush(point)

    def flush(self, point: int) -> None:
        """Send what there is; what the channel has no room for is counted as lost."""
        if self._decisions:
            self.send(self._decisions, point)
            self._decisions.clear()

    def send(self, decisions: Sequence[Decision], point: int) -> None:
        """Send these at once, whatever waits."""
        if not self._channel.send(Results(point=point, decisions=tuple(decisions))):
            self._meter.lost_results(len(decisions))


def ready(index: int, load_ms: float, engine: Engine) -> Ready:
    """The first point is loaded."""
    return Ready(
        point=index,
        load_ms=load_ms,
        runtime=engine.runtime,
        unit=engine.unit,
        rss_mib=rss_mib(),
    )


def changed(index: int, load_ms: float, engine: Engine) -> PointChanged:
    """Another point serves from now on."""
    return PointChanged(index=index, load_ms=load_ms, runtime=engine.runtime, unit=engine.unit)


def refused(index: int, error: EdgeError) -> PointRefused:
    """A point cannot serve."""
    return PointRefused(index=index, code=error.code, cause=error.cause, hint=error.hint)


def no_such_point(index: int, size: int) -> ContractError:
    """A point that the ladder does not have was asked for."""
    return ContractError(
        "no-such-point",
        f"Operating point {index} was asked for; the ladder has {size}, from 0.",
        "Restart the agent, so that governor and worker know the same release.",
    )
