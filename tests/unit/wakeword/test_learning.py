"""The network streams, spells and learns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.wakeword.augment import (
    RATE_HZ,
    Surroundings,
    amid_words,
    between_silence,
    disguised,
)
from converters.wakeword.feature_store import FeatureStore, batches
from converters.wakeword.learn import (
    Lessons,
    Plan,
    Told,
    find_mistakes,
    learn,
    losses,
    score_stream,
)
from converters.wakeword.network import FEATURES, STRIDE, Shape, Step, WakeNetwork
from converters.wakeword.spell import (
    Epoch,
    distance,
    errors,
    hear_clips,
    learn_to_spell,
    load_trunk,
    save_trunk,
)
from edge_sdk.errors import ConversionError

TINY = Shape(16, ((3, 1), (5, 1)), ((5, 2),))


def tone(hz: float, seconds: float = 0.3) -> np.ndarray:
    """A sound that stands for a phone."""
    return (0.3 * np.sin(np.arange(round(16000 * seconds)) * 2 * np.pi * hz / 16000)).astype("f4")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_stream_gives_what_the_whole_gives() -> None:
    torch.manual_seed(0)
    network = WakeNetwork(TINY).eval()
    x = torch.randn(2, FEATURES.bands, 60)
    whole = network.logits(x)
    step, states, found = Step(network), network.states(2), []
    for first in range(0, 60, STRIDE):
        logit, *states = step(x[:, :, first : first + STRIDE], *states)
        found.append(logit)
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-5)
    stream = x[0].T.numpy()
    assert np.allclose(score_stream(network, stream), torch.sigmoid(whole[0]).detach(), atol=1e-5)


def test_an_hour_in_pieces_is_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    network = WakeNetwork(TINY).eval()
    stream = np.random.default_rng(0).standard_normal((200, FEATURES.bands)).astype("f2")
    whole = score_stream(network, stream)
    monkeypatch.setattr("converters.wakeword.learn._CHUNK_STEPS", 7)
    assert np.allclose(score_stream(network, stream), whole, atol=1e-6)


@given(seed=st.integers(0, 1000), size=st.integers(400, 20000))
@settings(max_examples=15, deadline=None)
def test_surroundings_keep_length_and_level(seed: int, size: int) -> None:
    around = SURROUNDINGS
    chance = np.random.default_rng(seed)
    found = around.heard(chance.uniform(-0.5, 0.5, size).astype("f4"), chance)
    assert found.shape == (size,) and found.dtype == np.float32
    assert np.isfinite(found).all() and np.abs(found).max() <= 1.0


@given(seed=st.integers(0, 1000), size=st.integers(1, 20000), other=st.integers(1, 40000))
@settings(max_examples=50, deadline=None)
def test_words_beside_a_clip_do_not_touch_it(seed: int, size: int, other: int) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, size).astype("f4")
    found, start = amid_words(sound, lambda: np.ones(other, "f4"), np.random.default_rng(seed))
    assert found.dtype == np.float32
    assert np.array_equal(found[start : start + size], sound)
    assert start >= RATE_HZ and start + size + RATE_HZ // 2 < len(found)
    beside = np.concatenate((found[:start], found[start + size :]))
    assert not beside.any() or 0.3 <= beside.max() <= 1.2


def test_other_words_come_before_and_after() -> None:
    placed = [
        amid_words(np.zeros(8000, "f4"), lambda: np.ones(8000, "f4"), np.random.default_rng(seed))
        for seed in range(200)
    ]
    before = sum(bool(found[:start].any()) for found, start in placed)
    after = sum(bool(found[start:].any()) for found, start in placed)
    assert 60 <= before <= 100 and 30 <= after <= 70


def test_recorded_noise_is_no_louder_than_it_may_be() -> None:
    chance = np.random.default_rng(0)
    clip = np.zeros(16000, "f4")
    clip[4000:12000] = chance.uniform(-0.5, 0.5, 8000)

    def drowned(least_db: float) -> int:
        """Of forty, heard in noise that is a hundred times as strong."""
        loud = ((1.0, -20.0, -20.0),)
        around = Surroundings([[tone(300, 1.0)]], 0, loud, 0.0, least_db)
        heard = [around.heard(clip, chance) for _ in range(40)]
        return sum(float(np.square(x[:3000]).mean() / np.square(x).mean()) > 0.3 for x in heard)

    assert drowned(-math.inf) == 40
    assert drowned(20.0) < 25, "noise that was made may still be"


SURROUNDINGS = Surroundings([[tone(300, 1.0)]], seed=0)


def test_disguise_keeps_shape_and_changes_values() -> None:
    chance = np.random.default_rng(0)
    x = torch.rand(8, FEATURES.bands, 50)
    found = disguised(x, chance)
    assert found.shape == x.shape and torch.isfinite(found).all()
    assert not torch.allclose(found, x)
    assert found.max() <= x.max() + 1e-5 and found.min() >= x.min() - 1e-5


def test_batches_hold_every_clip_once() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.integers(10, 300, 331).tolist()
    found = list(batches(lengths, 16, chance))
    assert sorted(i for batch in found for i in batch) == list(range(331))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in found]
    assert np.median(spread) < 60


def test_a_store_pads_with_zeros() -> None:
    store = FeatureStore()
    store.add(tone(500))
    store.add_features(np.ones((7, FEATURES.bands), np.float16))
    assert [store.frames(i) for i in range(2)] == [28, 6]
    batch = store.batch([0, 1])
    assert batch.shape == (2, FEATURES.bands, 28)
    assert not batch[1, :, 6:].any() and batch[1, :, :6].eq(1).all()


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [("abc", "abc", 0), ("abc", "ac", 1), ("", "ab", 2), ("kitten", "sitting", 3)],
)
def test_distance_is_levenshteins(one: str, other: str, wanted: int) -> None:
    assert distance(one, other) == wanted


def test_it_learns_to_spell(tmp_path: Path) -> None:
    sounds = {"s": 3000.0, "ɑ": 600.0, "m": 250.0}
    chance = np.random.default_rng(1)
    said = [tuple(chance.choice(list(sounds), size=int(chance.integers(1, 4)))) for _ in range(96)]
    clips = [tuple(p for p, q in zip(c, (*c[1:], ""), strict=True) if p != q) for c in said]
    spoken = [np.concatenate([tone(sounds[p], 0.12) for p in clip]) for clip in clips]
    store = hear_clips(spoken, SURROUNDINGS, 0)
    told: list[Epoch] = []
    speller = learn_to_spell(
        clips, lambda number: store, TINY, epochs=36, learning_rate=3e-2, report=told.append
    )
    assert told[-1].number == 36 and told[-1].loss < 0.2 * told[2].loss
    assert errors(speller, store, range(len(clips)), clips) < 0.6
    save_trunk(speller, tmp_path / "trunk.pt")
    again = load_trunk(tmp_path / "trunk.pt", TINY)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), speller.state_dict().values(), strict=True)
    )
    for path, shape in ((tmp_path / "trunk.pt", Shape()), (tmp_path / "absent.pt", TINY)):
        with pytest.raises(ConversionError) as caught:
            load_trunk(path, shape)
        assert caught.value.code == "conversion.bad-embedding"
    for torn in (b"", b"no weights", b"hi\n", bytes(300), b"\x80\x02.", b"PK\x03\x04" + bytes(99)):
        (tmp_path / "torn.pt").write_bytes(torn)
        with pytest.raises(ConversionError) as caught:
            load_trunk(tmp_path / "torn.pt", TINY)
        assert caught.value.code == "conversion.bad-embedding"


def test_losses_look_where_they_should() -> None:
    logits = torch.full((2, 40), -9.0)
    lengths, spans = torch.tensor([40, 40]), torch.tensor([[10, 20]])
    missed, taken = losses(logits, lengths, spans)
    assert missed > 8 and taken < 0.01
    logits[0, 19:26] = 9.0  # the phrase, reported at its end
    missed, taken = losses(logits, lengths, spans)
    assert missed < 0.1 and taken < 0.01
    logits[1, 5] = 9.0  # not a phrase
    assert losses(logits, lengths, spans)[1] > 1
    logits[1, 5], logits[0, 2] = -9.0, 9.0  # long before the phrase
    assert losses(logits, lengths, spans)[1] > 1
    logits[0, 2] = -9.0
    lengths[1] = 30
    logits[1, 30:] = 9.0  # padding
    assert losses(logits, lengths, spans)[1] < 0.01


def lessons() -> Lessons:
    chance = np.random.default_rng(2)
    found = Lessons(shares={"other": 0.3, "mistakes": 0.2})
    found.others["other"] = FeatureStore()
    for _ in range(30):
        phrase = between_silence(np.concatenate([tone(2500, 0.2), tone(500, 0.2)]), 0.3, 0.5)
        found.phrases.add(SURROUNDINGS.heard(phrase, chance))
        found.ends.append((15, 35))
        other = between_silence(np.concatenate([tone(500, 0.2), tone(2500, 0.2)]), 0.3, 0.5)
        found.others["other"].add(SURROUNDINGS.heard(other, chance))
    found.streams.append(np.concatenate([found.others["other"].row(i) for i in range(20)]))
    return found


def test_it_learns_a_phrase_and_searches_its_mistakes() -> None:
    told: list[Told] = []
    torch.manual_seed(0)
    network = WakeNetwork(TINY)
    found = lessons()
    learn(
        network, found, Plan(steps=120, batch=24, learning_rate=1e-2, search_every=60), told.append
    )
    assert [t.step for t in told if t.mistakes_per_hour is not None] == [61]
    phrase = max(score_stream(network, found.phrases.row(0)))
    other = max(score_stream(network, found.others["other"].row(0)))
    assert phrase > 0.7 > 0.4 > other


def test_mistakes_lead_up_to_high_scores() -> None:
    class Loud(WakeNetwork):
        def forward(self, x: torch.Tensor, *before: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (x.mean(1, keepdim=True)[:, :, ::2], *before)

    stream = np.full((4000, FEATURES.bands), -9, np.float16)
    stream[3000:3010] = 9
    hard = FeatureStore()
    rate = find_mistakes(Loud(TINY), [stream], hard, np.random.default_rng(0))
    assert len(hard) == 1 and rate == pytest.approx(1 / (40 / 3600), rel=0.01)
    row = hard.row(0)
    assert row.max() == 9 and len(row) <= 300
