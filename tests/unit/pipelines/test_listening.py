"""A network that listens, from samples to words: cut anywhere, interrupted, gated, doubted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pipelines.listening import Listening, Step
from agent.pipelines.second_stage import SecondStage
from agent.sound.clips import Clips
from agent.sound.ring import Heard, SoundRing
from edge_sdk.audio.activity import ActivityGate
from edge_sdk.audio.detect import Hit
from edge_sdk.audio.samples import Floats
from edge_sdk.audio.wavefile import read_wave
from edge_sdk.contracts.audio import FeatureSpec, SoundInfo, WakeWord
from edge_sdk.contracts.operating_point import TensorSpec
from edge_sdk.durable import DiskStorage
from edge_sdk.errors import ContractError
from edge_sdk.runtime.engine import Array
from edge_sdk.runtime.stream import StreamSession
from tests.unit.audio.test_features import RATE, cut, noise

FEATURES = FeatureSpec(bands=8, compression="log")
LOUD = SoundInfo(
    features=FEATURES,
    frames_per_step=2,
    labels=("loud",),
    activation="none",
    words=(WakeWord(label="loud", cutoff=0.5, window_steps=3, refractory_s=1.0),),
)


def spec(name: str, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape, layout="other")


class Loudness:
    """An engine of our own interface: how loud are these frames, smoothed in a state?"""

    runtime, unit = "fake", "cpu"
    inputs = (spec("x", (1, 8, 2)), spec("s", (1, 1)))
    outputs = (spec("y", (1, 1)), spec("t", (1, 1)))

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        frames, state = inputs
        assert frames.shape == (1, 8, 2)
        loud = np.float32(frames.mean() > -5)
        after = state * np.float32(0.5) + loud * np.float32(0.5)
        return [after.copy(), after]

    def input_buffer(self, index: int) -> Array:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to free."""


def session() -> StreamSession:
    return StreamSession(Loudness(), Loudness.inputs, Loudness.outputs, [(1, 1)])


def said() -> Floats:
    """Three words a second and a half apart, in a quiet room."""
    parts = [noise(1.0, 1, 0.0005)]
    for seed in range(3):
        parts += [noise(0.4, seed, 0.2), noise(1.1, 9, 0.0005)]
    return np.concatenate(parts)


def steps_of(listening: Listening, blocks: Sequence[Floats]) -> list[Step]:
    found, at = [], 0
    for block in blocks:
        found += listening.push(Heard(block, at, False))
        at += len(block)
    return found


def hits_of(steps: Sequence[Step]) -> list[float]:
    return [hit.at_s for step in steps for hit in step.hits]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_however_the_sound_is_cut_the_steps_are_the_same(lengths: list[int]) -> None:
    whole = steps_of(Listening(session(), LOUD), [said()])
    parts = steps_of(Listening(session(), LOUD), cut(said(), lengths))
    assert [(s.number, s.end, s.hits) for s in whole] == [(s.number, s.end, s.hits) for s in parts]
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(whole, parts, strict=True))


def test_each_word_is_heard_once_shortly_after_it_began() -> None:
    listening = Listening(session(), LOUD)
    assert listening.step_s == 0.02
    hits = hits_of(steps_of(listening, cut(said(), [320])))
    assert len(hits) == 3
    for index, at_s in enumerate(hits):
        assert 0 < at_s - (1.0 + 1.5 * index) < 0.2


def test_a_hole_resets_the_states_and_keeps_the_clock() -> None:
    listening, sound = Listening(session(), LOUD), said()
    first = listening.push(Heard(sound[: RATE + 1000], 0, False))
    second = listening.push(Heard(sound[3 * RATE :], 3 * RATE, True))
    assert first[-1].end <= RATE + 1000
    assert second[0].end == 3 * RATE + FEATURES.window_samples + FEATURES.hop_samples
    assert second[0].number == first[-1].number + 1
    assert second[0].scores[0] in (0.0, 0.5), "the state began at zero"
    assert hits_of(second) == hits_of(
        Listening(session(), LOUD).push(Heard(sound[3 * RATE :], 3 * RATE, True))
    )


def test_the_gate_spares_the_network_and_no_word() -> None:
    plain = steps_of(Listening(session(), LOUD), [said()])
    gated = Listening(session(), LOUD, gate=ActivityGate(RATE))
    quiet = np.concatenate((said(), noise(8.0, 5, 0.0005)))
    found = steps_of(gated, cut(quiet, [480]))
    assert hits_of(found) == pytest.approx(hits_of(plain), abs=0.03)
    assert len(found) < 0.75 * len(quiet) / RATE / 0.02


def test_the_gate_keeps_the_streams_clock_over_a_hole() -> None:
    sound, gated = said(), Listening(session(), LOUD, gate=ActivityGate(RATE))
    gated.push(Heard(sound[: 2 * RATE + 77], 0, False))
    late = gated.push(Heard(sound[3 * RATE :], 3 * RATE, True))
    plain = Listening(session(), LOUD).push(Heard(sound[3 * RATE :], 3 * RATE, True))
    assert hits_of(late) == pytest.approx(hits_of(plain), abs=0.03)
    assert len(hits_of(late)) == 1


def test_a_device_may_have_cutoffs_of_its_own() -> None:
    deaf = [WakeWord(label="loud", cutoff=1.0, window_steps=3)]
    assert hits_of(steps_of(Listening(session(), LOUD, deaf), [said()])) == []


def test_the_second_stage_has_the_last_word() -> None:
    ring = SoundRing(8 * RATE)
    sound = said()
    ring.write(sound)
    second = SecondStage(Listening(session(), LOUD), ring.recall)
    agreed = Listening(session(), LOUD, verifier=second)
    assert len(hits_of(steps_of(agreed, [sound]))) == 3
    strict = [WakeWord(label="loud", cutoff=1.0, window_steps=40)]
    doubting = SecondStage(Listening(session(), LOUD, strict), ring.recall)
    refused = Listening(session(), LOUD, verifier=doubting)
    assert hits_of(steps_of(refused, [sound])) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"frames_per_step": 3}, "contract.model-input"),
        ({"order": "frames-bands"}, "contract.model-input"),
        ({"labels": ("a", "b")}, "contract.model-output"),
        ({"words": (WakeWord(label="w", output=1),)}, "contract.model-output"),
        ({"features": FeatureSpec(bands=8, high_hz=9000)}, "contract.bad-features"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(changes: dict[str, object], code: str) -> None:
    fields = {name: getattr(LOUD, name) for name in LOUD.__struct_fields__}
    with pytest.raises(ContractError) as caught:
        Listening(session(), SoundInfo(**{**fields, **changes}))
    assert caught.value.code == code


@pytest.mark.parametrize(("activation", "scores"), [("sigmoid", 0.5), ("softmax", 1.0)])
def test_scores_are_probabilities(activation: str, scores: float) -> None:
    fields = {name: getattr(LOUD, name) for name in LOUD.__struct_fields__}
    sound = SoundInfo(**{**fields, "activation": activation, "words": ()})
    steps = steps_of(Listening(session(), sound), [np.zeros(RATE, np.float32)])
    assert {float(step.scores[0]) for step in steps} == {scores}


def test_clips_hold_the_word_and_the_oldest_goes(tmp_path: Path) -> None:
    ring, sound = SoundRing(8 * RATE), said()
    written: list[Path] = []

    def clips() -> Clips:
        return Clips(
            tmp_path,
            keep=2,
            before_s=1.0,
            after_s=0.5,
            rate_hz=RATE,
            recall=ring.recall,
            storage=DiskStorage(),
        )

    keeper, listening = clips(), Listening(session(), LOUD)
    for start in range(0, len(sound), 320):
        ring.write(sound[start : start + 320])
        for step in listening.push(Heard(sound[start : start + 320], start, False)):
            for hit in step.hits:
                keeper.heard(hit, step.end)
        written += keeper.advance(ring.written)
    assert [path.name[:12] for path in written] == [f"00000{i}-loud-" for i in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == written[1:]
    samples, rate_hz = read_wave(written[2])
    assert (samples.shape, rate_hz) == ((int(1.5 * RATE), 1), RATE)
    again = clips()
    again.heard(Hit("loud", 0.5, 0.0), 100)
    assert [path.name for path in again.flush()] == ["000004-loud-50.wav"]
