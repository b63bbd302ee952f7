"""The user's recordings of the phrase, as lessons."""

from __future__ import annotations

import numpy as np
import pytest

from converters.wakeword.material import beside, trimmed


@pytest.mark.parametrize(
    ("said", "recorded", "heard"), [(100, 0, 0), (100, 1, 20), (100, 10, 50), (100, 80, 80)]
)
def test_few_recordings_count_as_many(said: int, recorded: int, heard: int) -> None:
    voices, people = np.zeros(10, np.float32), np.ones(10, np.float32)
    found = beside([voices] * said, [people] * recorded)
    assert sum(one is voices for one in found) == said
    assert sum(one is people for one in found) == heard


def test_a_recording_ends_where_the_phrase_does() -> None:
    chance = np.random.default_rng(0)
    speech = (0.2 * chance.standard_normal(6400)).astype(np.float32)
    room = (0.0005 * chance.standard_normal(16000)).astype(np.float32)
    found = trimmed(np.concatenate((room, speech, room)))
    assert len(speech) <= len(found) <= len(speech) + 320
