"""The fit recovers what made its data, and leave-one-out never sees what it predicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.fit import (
    OVERHEAD,
    PARAMETERS,
    SPEED,
    START,
    centred,
    fit,
    leave_one_out,
    mape_percent,
    network_of,
    predict_ms,
)
from device_profiles.latency import LayerCost, LayerKind

KINDS: list[LayerKind] = ["pointwise", "dense", "depthwise", "memory", "scalar", "winograd"]


def networks(seed: int, count: int = 30):
    """Networks whose layers differ enough to tell the coefficients apart."""
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(count):
        layers = []
        for _ in range(int(rng.integers(5, 40))):
            kind = KINDS[int(rng.integers(len(KINDS)))]
            macs = 0 if kind in ("memory", "scalar") else int(10 ** rng.uniform(5, 8.5))
            size = int(10 ** rng.uniform(3, 7))
            layers.append(LayerCost(kind, macs, size, size // 2))
        found[f"net{number}"] = network_of(layers)
    return found


theta = st.tuples(*(st.floats(-1.0, 4.0) for _ in range(OVERHEAD)), st.floats(0.0, 4.0)).map(
    np.array
)


@settings(max_examples=15, deadline=None)
@given(truth=theta, seed=st.integers(0, 1000))
def test_known_coefficients_predict_new_networks(truth, seed: int) -> None:
    known = networks(seed)
    times = {name: predict_ms(truth, net) for name, net in known.items()}
    found = fit(known, times, START, weight=1e-6)
    fresh = networks(seed + 5000, 10)
    errors = {n: predict_ms(found, net) / predict_ms(truth, net) - 1 for n, net in fresh.items()}
    assert mape_percent(errors) < 12
    mine = {n: predict_ms(found, net) / times[n] - 1 for n, net in known.items()}
    assert mape_percent(mine) < 5


def test_coefficients_that_the_data_show_are_recovered() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([2.0, 2.6, 1.4, 0.2, 1.0, 1.2, -0.5, 0.8, 3.0])
    known = {}
    for index, kind in enumerate(("pointwise", "dense", "depthwise", "memory", "scalar") * 6):
        macs = 0 if kind in ("memory", "scalar") else int(10 ** rng.uniform(7, 8))
        size = int(10 ** rng.uniform(5.5, 7)) if macs == 0 else 1000
        count = int(rng.integers(1, 300))
        known[f"n{index}"] = network_of([LayerCost(kind, macs, size)] * count)
    times = {name: predict_ms(truth, net) for name, net in known.items()}
    found = fit(known, times, START, weight=1e-7)
    for name in ("pointwise", "dense", "depthwise", "bandwidth", "scalar"):
        index = PARAMETERS.index(name)
        assert found[index] == pytest.approx(truth[index], abs=0.05), name


@given(truth=theta, seed=st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_the_gradient_is_the_models(truth, seed: int) -> None:
    from device_profiles.fit import _predict

    for net in networks(seed, 3).values():
        _, slope = _predict(truth, net)
        for index in range(len(PARAMETERS)):
            step = np.zeros(len(PARAMETERS))
            step[index] = 1e-6
            up, down = predict_ms(truth + step, net), predict_ms(truth - step, net)
            assert slope[index] == pytest.approx((np.log(up) - np.log(down)) / 2e-6, abs=1e-3)


def test_a_left_out_network_is_not_seen() -> None:
    """A corrupted measurement leaves its own prediction as it was."""
    known = networks(3, 12)
    truth = START + 0.3 * np.sin(np.arange(len(START)))
    times = {name: predict_ms(truth, net) for name, net in known.items()}
    wrong = {**times, "net0": times["net0"] * 50}
    clean, dirty = leave_one_out(known, times), leave_one_out(known, wrong)
    assert (1 + dirty["net0"]) * wrong["net0"] == pytest.approx((1 + clean["net0"]) * times["net0"])
    assert abs(clean["net0"]) < 0.5
    assert dirty["net0"] < -0.9


def test_the_prior_says_nothing_about_speed() -> None:
    known = networks(4)
    times = {name: predict_ms(START, net) for name, net in known.items()}
    slow = {name: 8 * ms for name, ms in times.items()}
    found = fit(known, slow, START, weight=100.0)
    shifted = START - SPEED * np.log(8)
    assert np.allclose(found, shifted, atol=0.05)
    assert np.allclose(centred(found), centred(START), atol=0.05)


@pytest.mark.parametrize("times", [{}, {"net0": 0.0}, {"net0": -1.0}, {"other": 1.0}])
def test_nothing_to_fit(times) -> None:
    with pytest.raises(ValueError, match="above zero"):
        fit(networks(0, 2), times)
