"""The roofline model: its arithmetic, its choice of rows, and published timings within its band."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.latency import (
    LayerCost,
    choose_row,
    error_of,
    precision_of,
    predict,
    uncalibrated,
)
from device_profiles.loader import load_profile, profile_ids

CALIBRATED = [name for name in profile_ids() if load_profile(name).cost]
SCHEMES = ["fp32", "wfp16", "static_wi8_ai8", "dynamic_wi8_afp32"]

layers = st.lists(
    st.builds(
        LayerCost,
        kind=st.sampled_from(["dense", "depthwise", "memory"]),
        macs=st.integers(0, 10**10),
        bytes=st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=30,
)
combination = st.fixed_dictionaries(
    {
        "profile": st.sampled_from(CALIBRATED).map(load_profile),
        "runtime": st.sampled_from(["litert", "onnxruntime"]),
        "scheme": st.sampled_from(SCHEMES),
        "threads": st.integers(1, 16),
    }
)


def band(layers, profile, runtime, scheme, threads):
    found = predict(profile, layers, runtime=runtime, scheme=scheme, threads=threads)
    assert found is not None
    return found


@settings(deadline=None)
@given(network=layers, where=combination)
def test_band_is_ordered_positive_and_explained(network, where) -> None:
    found = band(network, **where)
    assert 0 <= found.low_ms <= found.mid_ms <= found.high_ms < math.inf
    assert "leave-one-out error" in found.basis
    assert found.basis.startswith(where["runtime"]) or f"used for {where['runtime']}" in found.basis


@settings(deadline=None)
@given(network=layers, where=combination, more=st.integers(0, 10**9), what=st.data())
def test_more_work_is_never_faster(network, where, more, what) -> None:
    at = what.draw(st.integers(0, len(network) - 1))
    old = network[at]
    before = band(network, **where)
    for larger in (
        LayerCost(old.kind, old.macs + more, old.bytes),
        LayerCost(old.kind, old.macs, old.bytes + more),
    ):
        after = band([*network[:at], larger, *network[at + 1 :]], **where)
        assert after.mid_ms >= before.mid_ms * (1 - 1e-12)
    longer = band([*network, LayerCost("memory", 0, more)], **where)
    assert longer.mid_ms >= before.mid_ms


@settings(deadline=None)
@given(first=layers, second=layers, where=combination)
def test_layers_add_up_in_any_order(first, second, where) -> None:
    whole = band([*first, *second], **where).mid_ms
    swapped = band([*second, *first], **where).mid_ms
    parts = band(first, **where).mid_ms + band(second, **where).mid_ms
    assert math.isclose(whole, parts, rel_tol=1e-9)
    assert math.isclose(whole, swapped, rel_tol=1e-9)


def test_the_arithmetic_by_hand() -> None:
    """rpi4, int8, 1 thread: a compute-bound, a depthwise and a traffic-bound layer."""
    profile = load_profile("rpi4")
    row = choose_row(profile, runtime="litert", scheme="static_wi8_ai8", threads=1)
    assert row is not None
    network = [
        LayerCost("dense", 50_000_000, 1_000),
        LayerCost("depthwise", 5_000_000, 1_000),
        LayerCost("memory", 0, 3_000_000),
    ]
    expected_ms = (
        50e6 / (row.dense_gmac_s * 1e9) * 1e3
        + 5e6 / (row.depthwise_gmac_s * 1e9) * 1e3
        + 3e6 / (row.bandwidth_gb_s * 1e9) * 1e3
        + 3 * row.overhead_us / 1e3
    )
    found = band(network, profile, "litert", "static_wi8_ai8", 1)
    assert math.isclose(found.mid_ms, expected_ms, rel_tol=1e-12)
    assert math.isclose(found.high_ms / found.mid_ms, 1 + error_of(row, "litert"))
    assert math.isclose(found.mid_ms / found.low_ms, 1 + error_of(row, "litert"))


def test_rows_for_more_threads_are_never_used() -> None:
    profile = load_profile("jetson-orin-nano")  # rows for 1 and 6 threads
    chosen = {
        threads: choose_row(profile, runtime="litert", scheme="fp32", threads=threads)
        for threads in (1, 4, 6, 8)
    }
    assert [chosen[t].threads for t in (1, 4, 6, 8)] == [1, 1, 6, 6]
    found = band([LayerCost("memory", 0, 1)], profile, "litert", "fp32", 4)
    assert "no row for 4 threads" in found.basis


def test_own_rows_come_before_stand_ins_for_as_many_threads() -> None:
    import msgspec

    profile = load_profile("rpi5")
    stand_in = {row.threads: row for row in profile.cost if row.precision == "fp32"}
    own = msgspec.structs.replace(stand_in[1], runtime="litert", transfer_percent={})
    mine = msgspec.structs.replace(profile, cost=(own, *profile.cost))

    def chosen(threads: int):
        return choose_row(mine, runtime="litert", scheme="fp32", threads=threads)

    assert chosen(1) is own
    assert chosen(4) == stand_in[4]
    assert error_of(own, "litert") * 100 == pytest.approx(own.error_percent)


def test_a_stand_in_says_how_much_worse_it_is() -> None:
    profile = load_profile("snapdragon-8-gen3")
    found = band([LayerCost("dense", 10**8, 10**6)], profile, "litert", "fp32", 4)
    assert "measured on Snapdragon 8 Gen 2" in found.basis
    assert found.high_ms / found.mid_ms > 1.6


def test_an_uncalibrated_profile_predicts_nothing_and_says_why() -> None:
    profile = load_profile("x86-generic")
    where = {"runtime": "onnxruntime", "scheme": "fp32", "threads": 2}
    assert predict(profile, [LayerCost("dense", 1, 1)], **where) is None
    assert "uncalibrated" in uncalibrated(profile, **where)


def test_a_missing_combination_says_which() -> None:
    profile = load_profile("rpi4")
    where = {"runtime": "tvm", "scheme": "fp32", "threads": 2}
    assert predict(profile, [LayerCost("dense", 1, 1)], **where) is None
    assert "no cost row for fp32 on tvm" in uncalibrated(profile, **where)


@pytest.mark.parametrize(
    ("scheme", "precision"),
    [
        ("fp32", "fp32"),
        ("wfp16", "fp32"),
        ("fp16", "fp16"),
        ("static_wi8_ai8", "int8"),
        ("dynamic_wi8_afp32", "int8"),
    ],
)
def test_precision_of_a_scheme(scheme: str, precision: str) -> None:
    assert precision_of(scheme) == precision


def mobilenet_v1(element_bytes: int) -> list[LayerCost]:
    """MobileNetV1 1.0 at 224 (Howard et al. 2017, table 1): 569 million MACs."""

    def layer(kind, size, into, out, kernel, stride):
        after = size // stride
        weights = kernel * kernel * out * (1 if kind == "depthwise" else into)
        elements = weights + size * size * into + after * after * out
        return LayerCost(kind, weights * after * after, elements * element_bytes)

    found = [layer("dense", 224, 3, 32, 3, 2)]
    size, width = 112, 32
    for out, stride in (
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        + [(512, 1)] * 5
        + [(1024, 2), (1024, 1)]
    ):
        found.append(layer("depthwise", size, width, width, 3, stride))
        size //= stride
        found.append(layer("pointwise", size, width, out, 1, 1))
        width = out
    return [*found, LayerCost("pointwise", 1024 * 1000, 1024 * 1000 * element_bytes)]


def test_mobilenet_v1_layers_are_the_papers() -> None:
    assert sum(layer.macs for layer in mobilenet_v1(4)) == pytest.approx(569e6, rel=0.01)


@pytest.mark.parametrize("name", ["rpi4", "rpi3b-plus"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_published_mobilenet_v1_timings_lie_within_the_band(name: str, precision: str) -> None:
    profile = load_profile(name)
    published = next(
        r for r in profile.reference if (r.model, r.precision) == ("MobileNetV1", precision)
    )
    scheme, size = ("fp32", 4) if precision == "fp32" else ("static_wi8_ai8", 1)
    found = band(mobilenet_v1(size), profile, "litert", scheme, 4)
    assert found.low_ms <= published.ms <= found.high_ms


def test_what_runs_on_an_accelerator_alone_is_not_priced_as_on_the_cpu() -> None:
    profile = load_profile("rpi4")
    layers = [LayerCost("dense", 10**7, 10**5)]
    asked = {"runtime": "litert", "scheme": "fp32", "threads": 1}
    assert predict(profile, layers, **asked) is not None
    runtimes = tuple(msgspec.structs.replace(r, cpu_fallback=False) for r in profile.runtimes)
    alone = msgspec.structs.replace(profile, runtimes=runtimes)
    assert predict(alone, layers, **asked) is None
    assert "accelerator alone" in uncalibrated(alone, **asked)
