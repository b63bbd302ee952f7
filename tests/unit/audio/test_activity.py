"""The gate opens for words, with their beginning, and stays shut for a room's noise."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.audio.activity import ActivityGate, GatePolicy, Stretch
from edge_sdk.audio.samples import Floats
from tests.unit.audio.test_features import RATE, cut, noise


def quiet_word_quiet() -> Floats:
    return np.concatenate((noise(3.0, 1, 0.001), noise(0.6, 2, 0.05), noise(4.0, 3, 0.001)))


def passed(samples: Floats, lengths: list[int]) -> list[Stretch]:
    gate = ActivityGate(RATE)
    return [stretch for block in cut(samples, lengths) for stretch in gate.push(block)]


def joined(stretches: list[Stretch]) -> list[tuple[int, int]]:
    """Start and end of what belongs together."""
    found: list[tuple[int, int]] = []
    for stretch in stretches:
        end = stretch.start + len(stretch.samples)
        if found and not stretch.resumed:
            assert stretch.start == found[-1][1]
            found[-1] = (found[-1][0], end)
        else:
            found.append((stretch.start, end))
    return found


def test_a_word_passes_with_what_came_before_it() -> None:
    sound = quiet_word_quiet()
    policy = GatePolicy()
    last = joined(passed(sound, [160]))[-1]
    assert last[0] == 3 * RATE - policy.before_s * RATE
    assert abs(last[1] - int(3.6 * RATE + policy.hold_s * RATE)) <= 160


def test_what_passes_is_the_sound_at_its_place() -> None:
    sound = quiet_word_quiet()
    for stretch in passed(sound, [160]):
        assert np.array_equal(stretch.samples, sound[stretch.start :][: len(stretch.samples)])


def test_steady_noise_shuts_the_gate_whatever_its_level() -> None:
    for level in (0.0, 0.001, 0.02, 0.2):
        sound = noise(60.0, 4, level)
        late = sum(len(s.samples) for s in passed(sound, [1600]) if s.start > 40 * RATE)
        assert late == 0, level


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=5), st.integers(0, 5))
def test_blocks_do_not_matter(lengths: list[int], seed: int) -> None:
    levels = np.repeat(np.random.default_rng(seed).choice([0, 0.001, 0.1], 20), RATE // 4)
    sound = noise(5.0, seed, 1.0) * levels.astype(np.float32)
    whole, parts = passed(sound, [len(sound)]), passed(sound, lengths)
    assert joined(whole) == joined(parts)
    assert np.array_equal(
        np.concatenate([s.samples for s in whole] or [sound[:0]]),
        np.concatenate([s.samples for s in parts] or [sound[:0]]),
    )


def test_stretches_never_overlap_nor_go_back() -> None:
    end = 0
    for stretch in passed(quiet_word_quiet(), [777]):
        assert stretch.start >= end
        assert stretch.resumed == (stretch.start != end)
        end = stretch.start + len(stretch.samples)
