"""Runs the gate in the frame loop: two resident points, one decision per frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from agent.adapt.gate import Ledger, Plan, plan
from agent.sources.base import Frame
from agent.worker.points import Loaded
from agent.worker.swap import Swapper
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.runtime.margins import margins

log = logging.getLogger(__name__)


class Gating:
    """The gate of one frame loop.

    The point that answers first takes the swapper's place for a spare, so that two points are in
    memory at most, and a step of the governor to it needs no load.

    Args:
        ladder: what can run here.
        swapper: loads the first point, and holds it.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        ladder: Sequence[OperatingPoint],
        swapper: Swapper,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._ladder = tuple(ladder)
        self._swapper = swapper
        self._clock = clock
        self._allowed = True
        self._plan: Plan | None = None
        self._ledger = Ledger()
        self._asked = False
        self._gated = 0
        self._escalated = 0

    def stand(self, index: int) -> None:
        """The governor's point is now this one."""
        self._plan = plan(self._ladder, index)
        self._ledger = Ledger()
        self._asked = False

    def allow(self, on: bool) -> None:
        """Whether a second point may be in memory; it is freed at once when not."""
        if on != self._allowed:
            log.info("A second point %s", "may stay" if on else "may not stay: memory is short")
        self._allowed = on
        self._asked = False
        self._swapper.allow_spare(on)

    def prepare(self) -> None:
        """Between frames: have the first point loaded in the background, once per point."""
        if self._plan is None or not self._allowed or self._asked or self._swapper.busy:
            return
        self._asked = True
        self._swapper.prepare(self._plan.first)

    def decide(self, current: Loaded, frame: Frame) -> Decision:
        """Decide on one frame, on the first point or on the governor's.

        Raises:
            EdgeError: as :meth:`agent.pipelines.vision.VisionPipeline.process`.
        """
        used = self._plan
        if used is None or used.full != current.index:
            return current.pipeline.process(frame)
        start = self._clock()
        first = self._swapper.spare(used.first) if self._allowed else None
        gated = first is not None and self._ledger.wants_gate
        if gated and first is not None:
            decision = self._through(used, first, current, frame)
        else:
            decision = current.pipeline.process(frame)
        took_ms = (self._clock() - start) * 1e3
        if first is not None:
            self._book(took_ms, gated)
        return decision

    def take(self) -> tuple[int, int]:
        """Frames gated and frames escalated since the last call."""
        found = self._gated, self._escalated
        self._gated = self._escalated = 0
        return found

    def _through(self, used: Plan, first: Loaded, current: Loaded, frame: Frame) -> Decision:
        logits = first.pipeline.logits(frame)
        escalates = used.escalates(float(margins(logits[None])[0]))
        decision = (
            current.pipeline.process(frame) if escalates else first.pipeline.decision(frame, logits)
        )
        self._gated += 1
        self._escalated += escalates
        return decision

    def _book(self, took_ms: float, gated: bool) -> None:
        before = self._ledger
        self._ledger = before.after(took_ms, gated=gated)
        if self._ledger.resting and not before.resting:
            log.info(
                "The cascade rests: frames took %.2f ms with it and %.2f without",
                (before.gated_ms + took_ms) / (before.gated + 1),
                before.plain_ms / max(before.plain, 1),
            )
