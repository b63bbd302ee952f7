"""The sound loop: hears, decides, reports; what the frame loop is for cameras.

A network that listens is small: it loads in milliseconds, while the ring keeps the sound. So a step
along the ladder is taken in place, and nothing is lost by it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from agent.pipelines.enhancing import SpeechFilter
from agent.pipelines.listening import Listening, Step
from agent.pipelines.second_stage import SecondStage
from agent.sound.build import build_microphone
from agent.sound.ring import Heard, Listener
from agent.worker.channel import Channel
from agent.worker.memory import rss_mib
from agent.worker.meter import Meter
from agent.worker.options import ALARM_S, LOGGED_ERRORS, WAIT_S, ServeOptions
from agent.worker.points import Points
from agent.worker.protocol import Finished, SetPoint, Start, Stats, Stop
from agent.worker.reports import Batch, changed, no_such_point, ready, refused
from agent.worker.sound_setup import clips_of, words_here
from edge_sdk.audio.activity import ActivityGate
from edge_sdk.audio.caution import Cautions
from edge_sdk.audio.detect import Hit
from edge_sdk.contracts.audio import SoundInfo
from edge_sdk.contracts.manifest import Artifact
from edge_sdk.contracts.operating_point import OperatingPoint
from edge_sdk.contracts.telemetry import Decision
from edge_sdk.errors import EdgeError
from edge_sdk.runtime.engine import Engine
from edge_sdk.runtime.stream import StreamSession

TAKE_S = 0.5
"""Sound per turn at most, so that a worker that has fallen behind still obeys."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Current:
    index: int
    listening: Listening
    second: SecondStage | None
    load_ms: float


class SoundLoop:
    """Listens until the sound ends or it is told to stop.

    Args:
        points: the release, whose task says how its networks listen.
        sound: what it says.
        channel: to the supervisor.
        options: source, first point, batching.
        clock: monotonic seconds.

    Raises:
        ConfigError: ``config.no-such-word``.
        SourceError: ``source.extra-missing``.
    """

    def __init__(
        self,
        points: Points,
        sound: SoundInfo,
        channel: Channel,
        options: ServeOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._points, self._sound = points, sound
        self._channel, self._options = channel, options
        self._clock = clock
        self._words = words_here(sound, options.pipeline)
        self._cautions = Cautions(options.pipeline.sound.most_per_hour)
        self._microphone = build_microphone(
            options.pipeline.source,
            sound.features.sample_rate_hz,
            [word.label for word in sound.words],
        )
        self._listener: Listener = self._microphone.listen()
        self._clips = clips_of(options.pipeline, sound, self._microphone.ring.recall)
        self._meter = Meter(options.pipeline.objective_ms)
        self._batch = Batch(channel, options, self._meter, clock)
        self._started, self._stopping = not options.hold, False
        self._fresh = False
        """The network has just been loaded and has heard nothing yet."""
        self._lost_before = 0
        self._errors_logged = 0
        self._stats_due = self._alarm_due = 0.0

    def run(self) -> Finished:
        """Load, report :class:`Ready`, and listen.

        Raises:
            EdgeError: the first point cannot be loaded, or the source cannot be opened or read.
        """
        start = min(max(self._options.start_point, 0), len(self._points.ladder) - 1)
        self._current = self._load(start)
        engine = self._current.listening.session.engine
        self._channel.send(ready(start, self._current.load_ms, engine))
        self._stats_due = self._clock() + self._options.stats_interval_s
        try:
            while not (self._started or self._stopping):
                self._obey(WAIT_S)
                self._between()
            if not self._stopping:
                self._microphone.start()
                self._serve()
        finally:
            self._microphone.close()
        if self._clips is not None:
            self._clips.flush()
        self._batch.flush(self._current.index)
        self._send_stats()
        return Finished(reason="stopped" if self._stopping else "end-of-stream")

    def _serve(self) -> None:
        most = round(TAKE_S * self._sound.features.sample_rate_hz)
        while not (self._stopping or self._listener.ended):
            heard = self._listener.take(WAIT_S, most)
            if heard is not None:
                self._hear(heard)
            self._between()
            self._obey()

    def _hear(self, heard: Heard) -> None:
        if self._fresh:
            heard, self._fresh = heard._replace(resumed=True), False
        start = time.perf_counter()
        try:
            steps = self._current.listening.push(heard)
        except Exception as error:  # noqa: BLE001 - process boundary: one bad step is one error
            self._failed(error)
            return
        took_ms = (time.perf_counter() - start) * 1e3 / max(1, len(steps))
        for step in steps:
            self._report(step, took_ms)
        if self._clips is not None:
            try:
                self._clips.advance(heard.start + len(heard.samples))
            except EdgeError as error:
                log.error("A clip was not kept: %s", error)

    def _report(self, step: Step, took_ms: float) -> None:
        if self._sound.words:
            self._meter.stepped(took_ms)
            for hit in step.hits:
                log.info("heard %r (%.2f)", hit.label, hit.score)
                self._microphone.tell(hit.label)
                if self._clips is not None:
                    self._clips.heard(hit, step.end)
            if step.hits:  # somebody waits for it
                self._batch.send([_heard(step, hit) for hit in step.hits], self._current.index)
            return
        best = int(step.scores.argmax())
        decision = Decision(
            frame=step.number, label=self._sound.labels[best], score=float(step.scores[best])
        )
        self._meter.decided(decision, took_ms)
        self._batch.add(decision, self._current.index)

    def _failed(self, error: Exception) -> None:
        self._meter.failed()
        self._fresh = True
        if self._errors_logged < LOGGED_ERRORS:
            self._errors_logged += 1
            known = isinstance(error, EdgeError)
            log.error("A step failed: %s", error, exc_info=not known)

    def _between(self) -> None:
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
                self._move(command.index)
            command = self._channel.command()

    def _move(self, index: int) -> None:
        before = self._current
        if index != before.index:
            try:
                after = self._load(index)
            except EdgeError as error:
                self._channel.send(refused(index, error))
                return
            # What waits was decided by the point that leaves.
            self._batch.flush(before.index)
            self._send_stats()
            self._current = after
            _close(before)
        engine = self._current.listening.session.engine
        load_ms = self._current.load_ms if index != before.index else 0.0
        self._channel.send(changed(index, load_ms, engine))

    def _load(self, index: int) -> _Current:
        if not 0 <= index < len(self._points.ladder):
            raise no_such_point(index, len(self._points.ladder))
        start = time.perf_counter()
        settings = self._options.pipeline.sound
        second = None
        with ExitStack() as opened:
            if settings.verify and index > 0:
                second = SecondStage(self._listening(0), self._microphone.ring.recall)
                opened.callback(second.close)
            gate = ActivityGate(self._sound.features.sample_rate_hz) if settings.gate else None
            listening = self._listening(index, gate, second, self._cautions)
            opened.pop_all()
        self._fresh = True
        return _Current(index, listening, second, (time.perf_counter() - start) * 1e3)

    def _listening(
        self,
        index: int,
        gate: ActivityGate | None = None,
        second: SecondStage | None = None,
        cautions: Cautions | None = None,
    ) -> Listening:
        with ExitStack() as opened:
            point, artifact, engine = self._points.open(index)
            opened.callback(engine.close)
            listening = Listening(
                _session(engine, artifact),
                self._sound,
                self._words,
                gate=gate,
                cleaner=self._cleaner(point, opened),
                verifier=second,
                cautions=cautions,
            )
            opened.pop_all()
            return listening

    def _cleaner(self, point: OperatingPoint, opened: ExitStack) -> SpeechFilter | None:
        """The release's filter, unless this device does without; ``opened`` closes it."""
        found = self._points.open_filter(point) if self._options.pipeline.sound.enhance else None
        if found is None:
            return None
        spec, artifact, engine = found
        opened.callback(engine.close)
        return SpeechFilter(_session(engine, artifact), spec)

    def _send_stats(self) -> None:
        self._channel.send(self._stats())

    def _stats(self) -> Stats:
        spec = self._sound.features
        step = spec.hop_samples * self._sound.frames_per_step
        lost, self._lost_before = self._listener.lost - self._lost_before, self._listener.lost
        return self._meter.take(
            point=self._current.index,
            dropped=lost // step,
            queue_depth=self._listener.behind // step,
            rss_mib=rss_mib(),
            source=self._microphone.trouble,
        )


def _session(engine: Engine, artifact: Artifact) -> StreamSession:
    return StreamSession(engine, artifact.inputs, artifact.outputs, artifact.states)


def _heard(step: Step, hit: Hit) -> Decision:
    return Decision(frame=step.number, label=hit.label, score=hit.score)


def _close(current: _Current) -> None:
    current.listening.close()
    if current.second is not None:
        current.second.close()
