"""Shipped profiles are sound, and no profile file can do worse than a clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_profiles.loader import MAX_BYTES, load_profile, parse_profile, profile_ids
from edge_sdk.errors import ProfileError

CALIBRATED = {"rpi-zero-2w", "rpi3b-plus", "rpi4", "rpi4-coral", "rpi5", "rpi5-hailo8l"} | {
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-agx-orin",
    "snapdragon-8-gen2",
    "snapdragon-8-gen3",
    "dimensity-9300",
}
UNCALIBRATED = {"snapdragon-8-elite", "qcs6490", "tensor-g3", "tensor-g4", "exynos-2500"} | {
    "x86-generic"
}
REQUIRED = CALIBRATED | UNCALIBRATED
VARIANTS = {"rpi4-coral", "rpi5-hailo8l"}
MINIMAL = """
id = "mine"
title = "Mine"
family = "x86"
soc = "?"
machine = "x86_64"
[[cpu]]
uarch = "x"
cores = 2
mhz = 1000
[memory]
variants_mib = [1024]
usable_share = 0.5
source = "me"
[[runtimes]]
name = "litert"
min_version = "2"
schemes = ["fp32"]
[detect]
"""
ROW = """
[[cost]]
runtime = "litert"
precision = "fp32"
unit = "cpu"
threads = 1
dense_gmac_s = 1
depthwise_gmac_s = 1
bandwidth_gb_s = 1
overhead_us = 0
models = 3
error_percent = 10
source = "me"
"""


def problem(text: str) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text.encode(), "mine.toml")
    return caught.value


def test_the_promised_profiles_ship() -> None:
    assert set(profile_ids()) >= REQUIRED


@pytest.mark.parametrize("name", profile_ids())
def test_shipped_profile_is_sound(name: str) -> None:
    profile = load_profile(name)
    assert profile.id == name
    sources = [profile.memory.source, *(row.source for row in profile.cost)]
    sources += [unit.source for unit in (*profile.accelerators, *profile.reference)]
    assert all(len(source) > 10 for source in sources)
    assert not any(part in source for source in sources for part in ("/work", "/tmp", "shared"))
    detect = profile.detect
    found = detect.device_tree_model or detect.android_soc or detect.machine
    assert bool(found) != (name in VARIANTS), "a board with an accelerator is chosen by name"
    for runtime in profile.runtimes:
        assert {"static_wi8_ai8", "fp32"} <= set(runtime.schemes)


@pytest.mark.parametrize("name", sorted(CALIBRATED))
def test_boards_with_public_timings_are_calibrated(name: str) -> None:
    precisions = {row.precision for row in load_profile(name).cost}
    assert {"fp32", "int8"} <= precisions


@pytest.mark.parametrize("name", sorted(UNCALIBRATED))
def test_the_others_give_no_estimate_and_say_so(name: str) -> None:
    profile = load_profile(name)
    assert profile.cost == ()
    assert "ncalibrated" in profile.notes


def test_every_accelerator_that_is_not_the_gpu_says_what_it_takes_or_that_nobody_knows() -> None:
    for profile in map(load_profile, profile_ids()):
        for unit in profile.accelerators:
            if unit.kind in ("npu", "tpu"):
                assert unit.constraints or "no public list of operators" in profile.notes
            for limits in unit.constraints:
                assert limits.runtime in unit.runtimes
                assert len(limits.ops) > 20


def test_preferred_runtimes() -> None:
    first = {name: load_profile(name).runtimes[0].name for name in REQUIRED}
    assert first["rpi4"] == first["rpi5"] == first["snapdragon-8-gen3"] == "litert"
    assert first["jetson-orin-nano"] == first["x86-generic"] == "onnxruntime"


def test_minimal_profile() -> None:
    profile = parse_profile(MINIMAL.encode(), "mine.toml")
    assert (profile.id, profile.cost, profile.default_threads) == ("mine", (), 1)


def test_profile_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert load_profile(str(path)).id == "mine"


def test_unknown_profile_suggests() -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile("rpi44")
    assert caught.value.code == "profile.unknown"
    assert "'rpi4'" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "../rpi4", "nothing.toml", "/", "\0.toml"])
def test_paths_that_are_no_profile(name: str) -> None:
    with pytest.raises(ProfileError):
        load_profile(name)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ProfileError, match="larger than") as caught:
        load_profile(str(path))
    assert caught.value.code == "profile.unreadable"


def test_malformed_toml_names_the_line() -> None:
    error = problem(MINIMAL.replace("cores = 2", "cores = two"))
    assert error.code == "profile.malformed"
    assert "line 9" in error.cause


def test_not_text() -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(b"\xff\xfe\x00", "mine.toml")
    assert caught.value.code == "profile.malformed"


@pytest.mark.parametrize(
    ("wrong", "right", "text"),
    [
        ("titel", "title", MINIMAL.replace("title", "titel")),
        ("coers", "cores", MINIMAL.replace("cores", "coers")),
        ("overhead_ms", "overhead_us", MINIMAL + ROW.replace("overhead_us", "overhead_ms")),
        ("usable_shar", "usable_share", MINIMAL.replace("usable_share", "usable_shar")),
    ],
)
def test_unknown_key_suggests(wrong: str, right: str, text: str) -> None:
    error = problem(text)
    assert error.code == "profile.unknown-key"
    assert repr(wrong) in error.cause
    assert repr(right) in error.hint


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cores = 2", "cores = 0", "cores"),
        ('family = "x86"', 'family = "toaster"', "family"),
        ("usable_share = 0.5", "usable_share = 1.5", "usable_share"),
        ('name = "litert"', 'name = "tensorflow"', "name"),
        ('id = "mine"', 'id = "../mine"', "profile id"),
        ("mhz = 1000", "mhz = 1000\nfeatures = 3", "features"),
        ("variants_mib = [1024]", "variants_mib = []", "variants_mib is empty"),
        ('id = "mine"', 'id = "mine"\ndefault_threads = 9', "9 on 2 cores"),
        ("mhz = 1000", "mhz = 99999999999999999999999", "mhz"),
        ('soc = "?"', "soc = 1979-05-27T07:32:00Z", "soc"),
    ],
)
def test_values_that_make_no_sense(old: str, new: str, said: str) -> None:
    error = problem(MINIMAL.replace(old, new))
    assert error.code == "profile.invalid"
    assert said in error.cause


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW.replace("threads = 1", "threads = 3"), "3 threads on 2 cores"),
        (ROW + ROW, "two cost rows for litert fp32 cpu 1"),
        (ROW + 'power_mode = "fast"', "'fast' is not in power_modes"),
        (ROW.replace("dense_gmac_s = 1", "dense_gmac_s = inf"), "not finite"),
        (ROW.replace("dense_gmac_s = 1", "dense_gmac_s = nan"), ""),
        (ROW.replace("bandwidth_gb_s = 1", "bandwidth_gb_s = 0"), "bandwidth_gb_s"),
        (ROW.replace("bandwidth_gb_s = 1", "bandwidth_gb_s = -1"), "bandwidth_gb_s"),
    ],
)
def test_cost_rows_that_make_no_sense(row: str, said: str) -> None:
    error = problem(MINIMAL + row)
    assert error.code == "profile.invalid"
    assert said in error.cause


def test_thermal_limits_in_order() -> None:
    heat = '[thermal]\nthrottle_celsius = 90\ncritical_celsius = 80\nsource = "me"\n'
    assert "critical_celsius is below" in problem(MINIMAL + heat).cause


@pytest.mark.parametrize("schema", [2, 99])
def test_newer_schema_is_refused_with_the_hint_to_update(schema: int) -> None:
    error = problem(f"schema = {schema}\n" + MINIMAL)
    assert error.code == "profile.too-new"
    assert "Update" in error.hint


SHIPPED = (Path(__file__).parents[3] / "device_profiles/data/rpi4.toml").read_text()


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_profiles_load_or_fail_clearly(data: st.DataObject) -> None:
    """Characters, lines and values of a real profile, changed at random."""
    lines = SHIPPED.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "insert", "value"]))
        if change == "drop":
            del lines[at]
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "insert":
            position = data.draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:position] + data.draw(st.text(max_size=3)) + lines[at][position:]
        else:
            key = lines[at].partition("=")[0]
            value = data.draw(
                st.sampled_from(["-1", "0", "inf", "nan", "true", '""', "[]", "{}", "1e400"])
            )
            lines[at] = f"{key}= {value}"
    try:
        profile = parse_profile("\n".join(lines).encode("utf-8", "surrogatepass"), "mutated.toml")
    except ProfileError as error:
        assert error.hint
        assert "\n" not in error.cause or "\n" in "".join(lines)
    else:
        assert profile.cpu
        assert profile.runtimes


@given(data=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_never_get_past_the_error_family(data: bytes) -> None:
    with pytest.raises(ProfileError):
        parse_profile(data, "noise.toml")


def test_deep_nesting_is_refused() -> None:
    assert problem("id = " + "[" * 100_000).code == "profile.malformed"
