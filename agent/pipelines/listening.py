"""A network that listens: sound in, words heard out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.pipelines.enhancing import SpeechFilter
from agent.sound.ring import Heard
from edge_sdk.audio.activity import ActivityGate, Stretch
from edge_sdk.audio.caution import Cautions
from edge_sdk.audio.detect import Detector, Hit
from edge_sdk.audio.frontends import front_end
from edge_sdk.audio.samples import Floats
from edge_sdk.contracts.audio import SoundInfo, WakeWord
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import Array
from edge_sdk.runtime.stream import StreamSession

Verifier = Callable[[Hit, int], bool]
"""A second opinion on a hit, given the position of its last sample."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the network."""

    number: int
    scores: Floats
    """A probability per label."""
    end: int
    """Position of the last sample that had part in it, plus one."""
    hits: tuple[Hit, ...]


class Listening:
    """Front end, network and detection over one stream.

    Args:
        session: the loaded network; closed with this.
        sound: what its inputs and outputs mean.
        words: what to report and from which cutoff; the release's own when None.
        gate: passes only what is worth a look; None for everything.
        cleaner: takes noise out of the sound before; closed with this. None for none.
        verifier: has the last word on a hit; None where there is no second stage.
        cautions: raises cutoffs of words that are reported too often; outlives a change of points.

    Raises:
        ContractError: ``contract.bad-features``, ``contract.model-input`` or
            ``contract.model-output`` when network and release do not fit together.
    """

    def __init__(
        self,
        session: StreamSession,
        sound: SoundInfo,
        words: Sequence[WakeWord] | None = None,
        *,
        gate: ActivityGate | None = None,
        cleaner: SpeechFilter | None = None,
        verifier: Verifier | None = None,
        cautions: Cautions | None = None,
    ) -> None:
        self.sound = sound
        self.session = session
        self._front = front_end(sound.features)
        self._shape = _input_shape(session, sound)
        self._scores = _scorer(session, sound)
        self._cautions = cautions or Cautions()
        self._detector = Detector(sound.words if words is None else words, self._cautions)
        self._gate = gate
        self._cleaner = cleaner
        self._verifier = verifier
        self._waiting: list[Floats] = []
        self._steps = 0
        self._end = 0
        """Position of the next frame's last sample, plus one."""
        self.reset()

    @property
    def step_s(self) -> float:
        """Sound per step of the network."""
        spec = self.sound.features
        return self.sound.frames_per_step * spec.hop_samples / spec.sample_rate_hz

    def push(self, heard: Heard) -> list[Step]:
        """What a stretch of sound completes.

        Raises:
            RuntimeUnavailableError: the inference failed.
        """
        if heard.resumed:
            self._front.reset()
            self._go_on(heard.start)
            if self._gate is not None:
                self._gate.go_on(heard.start)
            if self._cleaner is not None:
                self._cleaner.reset()
        clean = heard.samples if self._cleaner is None else self._cleaner.push(heard.samples)
        if self._gate is None:
            return self._advance(clean)
        found = []
        for stretch in self._gate.push(clean):
            found += self._enter(stretch)
        return found

    @property
    def lag_samples(self) -> int:
        """Sound after a step's last sample that must be pushed before it is taken, at most."""
        return 0 if self._cleaner is None else self._cleaner.lag_samples

    def reset(self) -> None:
        """Another stream."""
        self._front.reset()
        if self._cleaner is not None:
            self._cleaner.reset()
        self._detector.reset()
        self._go_on(0)

    def close(self) -> None:
        """Free the network."""
        self.session.close()
        if self._cleaner is not None:
            self._cleaner.close()

    def _enter(self, stretch: Stretch) -> list[Step]:
        if stretch.resumed:
            # The room's levels are still those of before; only what is half done is stale.
            self._front.skip()
            self._go_on(stretch.start)
        return self._advance(stretch.samples)

    def _go_on(self, position: int) -> None:
        """The stream goes on somewhere else."""
        self._end = position + self.sound.features.window_samples
        self._waiting = []
        self.session.reset()
        self._detector.forget_scores()

    def _advance(self, samples: Floats) -> list[Step]:
        found = []
        for frame in self._front.push(samples):
            self._waiting.append(frame)
            if len(self._waiting) == self.sound.frames_per_step:
                found.append(self._step(np.stack(self._waiting), self._end))
                self._waiting = []
            self._end += self.sound.features.hop_samples
        return found

    def _step(self, frames: Floats, end: int) -> Step:
        laid = frames.T if self.sound.order == "bands-frames" else frames
        outputs = self.session.step([np.ascontiguousarray(laid).reshape(self._shape)])
        scores = self._scores(outputs[0])
        hits = self._detector.step(scores.tolist(), end / self.sound.features.sample_rate_hz)
        if self._verifier is not None:
            hits = [hit for hit in hits if self._verifier(hit, end)]
        for hit in hits:
            self._cautions.heard(hit.label, hit.at_s)
        self._steps += 1
        return Step(self._steps - 1, scores, end, tuple(hits))


def _input_shape(session: StreamSession, sound: SoundInfo) -> tuple[int, ...]:
    """What a step's frames are reshaped to.

    Raises:
        ContractError: ``contract.model-input``.
    """
    bands, frames = sound.features.bands, sound.frames_per_step
    sizes = (bands, frames) if sound.order == "bands-frames" else (frames, bands)
    shapes = [_user_shape(spec.shape, spec.layout) for spec in session.inputs]
    real = [tuple(size for size in shape if size != 1) for shape in shapes]
    if real != [tuple(size for size in sizes if size != 1)]:
        raise ContractError(
            "model-input",
            f"The network takes {shapes} besides its states; {frames} frames of {bands} bands make "
            f"{list(sizes)}.",
            "Correct the task's sound (frames_per_step, order, features) and convert again.",
        )
    return shapes[0]


def _user_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    if layout == "NHWC" and len(shape) == 4:
        return shape[0], shape[3], shape[1], shape[2]
    return shape


def _scorer(session: StreamSession, sound: SoundInfo) -> Callable[[Array], Floats]:
    """From the network's answer to probabilities.

    Raises:
        ContractError: ``contract.model-output``.
    """
    size = int(np.prod(session.outputs[0].shape)) if session.outputs else 0
    beyond = [word.label for word in sound.words if word.output >= len(sound.labels)]
    if size != len(sound.labels) or beyond:
        raise ContractError(
            "model-output",
            f"The network gives {size} scores for {len(sound.labels)} labels"
            + (f", and {beyond[0]!r} is beyond them." if beyond else "."),
            "Correct the task's sound (labels, words) and convert again.",
        )
    if sound.activation == "sigmoid":
        return lambda raw: _sigmoid(raw.reshape(-1))
    if sound.activation == "softmax":
        return lambda raw: _softmax(raw.reshape(-1))
    return lambda raw: raw.reshape(-1).astype(np.float32)


def _sigmoid(raw: Array) -> Floats:
    found: Floats = (1.0 / (1.0 + np.exp(-np.clip(raw, -80, 80)))).astype(np.float32)
    return found


def _softmax(raw: Array) -> Floats:
    powers = np.exp(raw - raw.max())
    found: Floats = (powers / powers.sum()).astype(np.float32)
    return found
