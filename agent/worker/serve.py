"""The frame loop: takes frames, decides, reports, and changes operating points in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from agent.pipelines.pixels import Pixels
from agent.sources.base import Frame
from agent.sources.build import build_feed
from agent.sources.feed import Feed
from agent.worker.channel import Channel
from agent.worker.gating import Gating
from agent.worker.memory import return_freed, rss_mib
from agent.worker.meter import Meter
from agent.worker.options import ALARM_S, LOGGED_ERRORS, WAIT_S, ServeOptions
from agent.worker.points import Loaded, Points
from agent.worker.protocol import AllowCascade, Finished, SetPoint, Start, Stats, Stop
from agent.worker.reports import Batch, changed, no_such_point, ready, refused
from agent.worker.swap import Swapper
from edge_sdk.errors import EdgeError

log = logging.getLogger(__name__)


class FrameLoop:
    """Serves until the stream ends or it is told to stop.

    Args:
        points: the release.
        channel: to the supervisor.
        options: source, first point, batching.
        pixels: the pixel operations.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        points: Points,
        channel: Channel,
        options: ServeOptions,
        pixels: Pixels,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._points = points
        self._channel = channel
        self._options = options
        self._clock = clock
        self._pixels = pixels
        self._swapper = Swapper(self._load)
        self._gating = Gating(points.ladder, self._swapper)
        self._meter = Meter(options.pipeline.objective_ms)
        self._batch = Batch(channel, options, self._meter, clock)
        self._started = not options.hold
        self._stopping = False
        self._feed: Feed | None = None
        self._dropped_before = 0
        self._errors_logged = 0
        self._stats_due = 0.0
        self._alarm_due = 0.0

    def run(self) -> Finished:
        """Load, report :class:`Ready`, and serve.

        Raises:
            EdgeError: the first point cannot be loaded, or the source cannot be opened or read.
        """
        # The source is built first, so that a missing extra or labels file is known before Ready.
        feed = build_feed(self._options.pipeline.source)
        start = min(max(self._options.start_point, 0), len(self._points.ladder) - 1)
        self._current = self._points.load(start, self._pixels)
        self._gating.stand(start)
        self._gating.allow(self._options.cascade)
        self._channel.send(ready(start, self._current.load_ms, self._current.pipeline.engine))
        self._stats_due = self._clock() + self._options.stats_interval_s
        try:
            self._hold()
            if not self._stopping:
                self._feed = feed
                feed.start()
                self._serve(feed)
        finally:
            feed.close()
        self._batch.flush(self._current.index)
        self._send_stats()
        return Finished(reason="stopped" if self._stopping else "end-of-stream")

    def _hold(self) -> None:
        self._swapper.pause(begins=True)
        while not (self._started or self._stopping):
            self._obey(timeout_s=WAIT_S)
            self._between_frames()

    def _serve(self, feed: Feed) -> None:
        while not (self._stopping or feed.ended):
            self._swapper.pause(begins=not feed.depth)
            frame = feed.get(WAIT_S)
            self._swapper.pause(begins=False)
            if frame is not None:
                self._decide(frame)
            self._between_frames()
            self._gating.prepare()
            self._obey()

    def _decide(self, frame: Frame) -> None:
        start = time.perf_counter()
        try:
            decision = self._gating.decide(self._current, frame)
        except Exception as error:  # noqa: BLE001 - process boundary: one bad frame is one error
            self._frame_failed(frame, error)
            return
        self._meter.decided(decision, (time.perf_counter() - start) * 1e3)
        self._batch.add(decision, self._current.index)

    def _frame_failed(self, frame: Frame, error: Exception) -> None:
        self._meter.failed()
        if self._errors_logged < LOGGED_ERRORS:
            self._errors_logged += 1
            known = isinstance(error, EdgeError)
            log.error("Frame %d failed: %s", frame.number, error, exc_info=not known)

    def _between_frames(self) -> None:
        if self._swapper.busy:
            self._swap()
        now = self._clock()
        self._batch.flush_due(now, self._current.index)
        due = now >= (self._alarm_due if self._meter.late else self._stats_due)
        if due and not self._channel.congested:
            self._stats_due = now + self._options.stats_interval_s
            self._alarm_due = min(now + ALARM_S, self._stats_due)
            self._send_stats()

    def _obey(self, timeout_s: float = 0.0) -> None:
        command = self._channel.command(timeout_s)
        while command is not None:
            if isinstance(command, Stop):
                self._stopping = True
            elif isinstance(command, Start):
                self._started = True
            elif isinstance(command, SetPoint):
                self._request(command)
            elif isinstance(command, AllowCascade):
                self._gating.allow(command.on)
            command = self._channel.command()

    def _request(self, command: SetPoint) -> None:
        index = command.index
        if not 0 <= index < len(self._points.ladder):
            error = no_such_point(index, len(self._points.ladder))
            self._refuse(index, error)
        elif index == self._current.index:
            self._swapper.cancel()
            self._gating.stand(index)
            self._announce(self._current, 0.0)
        elif command.alone and self._swapper.spare(index) is None:
            self._replace(index)
        else:
            self._swapper.request(index)

    def _replace(self, index: int) -> None:
        """Change places with a point that does not fit beside this one; frames wait meanwhile.

        Raises:
            EdgeError: neither the point nor, after it, the one of before can be loaded.
        """
        before = self._current
        self._batch.flush(before.index)
        self._send_stats()
        self._swapper.cancel()
        self._swapper.free_spare()
        gone: list[Loaded] = []

        def let_go() -> None:
            before.pipeline.close()
            return_freed()
            gone.append(before)

        try:
            self._current = self._points.load(index, self._pixels, let_go)
        except EdgeError as error:
            self._refuse(index, error)
            if gone:
                self._current = self._points.load(before.index, self._pixels)
        else:
            self._announce(self._current, self._current.load_ms)
        self._gating.stand(self._current.index)

    def _load(self, index: int) -> Loaded:
        return self._points.load(index, self._pixels, self._swapper.await_pause)

    def _swap(self) -> None:
        outcome = self._swapper.poll()
        if isinstance(outcome, Loaded):
            # Results and statistics never mix two points.
            self._batch.flush(self._current.index)
            self._send_stats()
            self._swapper.keep(self._current)
            self._current = outcome
            self._gating.stand(outcome.index)
            self._announce(outcome, outcome.load_ms)
        elif outcome is not None:
            self._refuse(*outcome)
            self._gating.stand(self._current.index)

    def _refuse(self, index: int, error: EdgeError) -> None:
        self._channel.send(refused(index, error))

    def _announce(self, loaded: Loaded, load_ms: float) -> None:
        self._channel.send(changed(loaded.index, load_ms, loaded.pipeline.engine))

    def _send_stats(self) -> None:
        self._channel.send(self._stats())

    def _stats(self) -> Stats:
        feed = self._feed
        dropped = feed.dropped if feed else 0
        gated, escalated = self._gating.take()
        stats = self._meter.take(
            point=self._current.index,
            dropped=dropped - self._dropped_before,
            queue_depth=feed.depth if feed else 0,
            rss_mib=rss_mib(),
            source=feed.trouble if feed else "",
            gated=gated,
            escalated=escalated,
        )
        self._dropped_before = dropped
        return stats
