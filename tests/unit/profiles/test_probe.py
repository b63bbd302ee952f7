"""Which board is this: from the files of several boards, and from rubbish."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_profiles.loader import load_profile
from device_profiles.probe import Facts, contradictions, probe, read_facts
from tests.fakes.sysroot import write_sysroot

A72, A76, A53, A78AE = 0xD08, 0xD0B, 0xD03, 0xD42


@pytest.mark.parametrize(
    ("model", "part", "cores", "memory_mib", "expected"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", A72, 4, 3792, "rpi4"),
        ("Raspberry Pi 4 Model B Rev 1.1", A72, 4, 909, "rpi4"),
        ("Raspberry Pi 5 Model B Rev 1.0", A76, 4, 8052, "rpi5"),
        ("Raspberry Pi Zero 2 W Rev 1.0", A53, 4, 416, "rpi-zero-2w"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", A53, 4, 905, "rpi3b-plus"),
        ("NVIDIA Jetson Orin Nano Developer Kit", A78AE, 6, 7607, "jetson-orin-nano"),
        (
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            A78AE,
            6,
            7607,
            "jetson-orin-nano",
        ),
        ("NVIDIA Jetson AGX Orin Developer Kit", A78AE, 12, 30697, "jetson-agx-orin"),
    ],
)
def test_boards_are_recognised(
    tmp_path: Path, model: str, part: int, cores: int, memory_mib: int, expected: str
) -> None:
    root = write_sysroot(tmp_path, model=model, part=part, cores=cores, memory_mib=memory_mib)
    found = probe(root)
    assert found.profile == expected
    assert found.reasons == (f"The device tree says {model!r}.",)
    assert found.facts.memory_mib == memory_mib
    assert len(found.facts.cpu) == cores


def test_facts_of_a_pi_5(tmp_path: Path) -> None:
    features = "fp asimd aes atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
    root = write_sysroot(
        tmp_path, model="Raspberry Pi 5 Model B", part=A76, mhz=2400, features=features
    )
    facts = probe(root).facts
    assert facts.cpu == ("cortex-a76",) * 4
    assert facts.cpu_features == ("dotprod", "fp16", "neon")
    assert (facts.machine, facts.max_mhz) == ("aarch64", 2400)
    assert facts.thermal_celsius == {"cpu-thermal": 48.2}
    assert not facts.has_pressure


def test_android_by_its_properties(tmp_path: Path) -> None:
    root = write_sysroot(tmp_path, part=0xD82, cores=8, memory_mib=11400, android_soc="SM8650")
    found = probe(root)
    assert found.profile == "snapdragon-8-gen3"
    assert found.reasons[0] == "Android says ro.soc.model=SM8650."


@pytest.mark.parametrize(
    ("flags", "features", "profile"),
    [
        ("fpu lm avx2 avx512f avx512_vnni", ("avx2", "vnni"), "x86-vnni"),
        ("fpu lm avx2 avx_vnni", ("avx2", "vnni"), "x86-vnni"),
        ("fpu lm avx2 avx512f", ("avx2",), "x86-generic"),
        ("fpu lm", (), "x86-generic"),
    ],
)
def test_a_pc_by_its_machine_and_its_flags(
    tmp_path: Path, flags: str, features: tuple[str, ...], profile: str
) -> None:
    """Unsigned activations saturate without VNNI, so only a CPU that says so gets them."""
    cpuinfo = f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\n"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo * 2)
    found = probe(tmp_path)
    assert found.profile == profile
    assert found.facts.cpu == ("Some CPU", "Some CPU")
    assert found.facts.cpu_features == features
    asked = {s for runtime in load_profile(profile).runtimes for s in runtime.schemes}
    assert ("static_wi8_au8" in asked) == ("vnni" in features)


def test_a_cpu_that_lacks_what_its_profile_needs_is_told() -> None:
    facts = Facts(machine="x86_64", cpu_features=("avx2",))
    assert any("lacks vnni" in text for text in contradictions(facts, load_profile("x86-vnni")))
    assert contradictions(facts, load_profile("x86-generic")) == []


def test_this_machine_is_probed_without_an_argument() -> None:
    found = probe()
    assert found.facts.machine
    assert found.facts.memory_mib


def test_an_unknown_board_is_not_taken_for_another(tmp_path: Path) -> None:
    """It has a device tree, so the machine type must not decide."""
    found = probe(write_sysroot(tmp_path, model="Acme Toaster 3000", part=A53))
    assert found.profile is None
    assert "Acme Toaster 3000" in found.reasons[0]


def test_an_empty_root_gives_no_profile_and_a_reason(tmp_path: Path) -> None:
    found = probe(tmp_path)
    assert found.profile is None
    assert "No device tree" in found.reasons[0]


def test_contradictions_are_listed(tmp_path: Path) -> None:
    root = write_sysroot(
        tmp_path,
        model="Raspberry Pi 4 Model B Rev 1.4",
        part=A72,
        cores=2,
        memory_mib=500,
        architecture=7,
    )
    found = probe(root)
    assert found.profile == "rpi4"
    said = " ".join(found.reasons[1:])
    assert "The kernel is armv7l" in said
    assert "500 MiB of memory; the smallest variant has 1024" in said
    assert "2 of the board's 4 cores" in said


def test_endless_and_broken_files_are_bounded(tmp_path: Path) -> None:
    root = write_sysroot(tmp_path, model="Raspberry Pi 4 Model B", part=A72)
    (root / "proc/cpuinfo").write_bytes(b"\xff\x00" * 2_000_000)
    (root / "proc/meminfo").unlink()
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("hot\n")
    found = probe(root)
    assert found.profile == "rpi4"
    assert found.facts.thermal_celsius == {}


@given(
    cpuinfo=st.binary(max_size=200),
    meminfo=st.binary(max_size=100),
    temperature=st.binary(max_size=20),
    model=st.binary(max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_rubbish_in_any_file_is_survived(
    tmp_path_factory: pytest.TempPathFactory,
    cpuinfo: bytes,
    meminfo: bytes,
    temperature: bytes,
    model: bytes,
) -> None:
    root = write_sysroot(tmp_path_factory.mktemp("root"), model="x", part=A53, cores=1)
    (root / "proc/cpuinfo").write_bytes(b"CPU part\t: 0x" + cpuinfo)
    (root / "proc/meminfo").write_bytes(b"MemTotal: " + meminfo)
    (root / "sys/class/thermal/thermal_zone0/temp").write_bytes(temperature)
    (root / "proc/device-tree/model").write_bytes(model)
    read_facts(root)
    probe(root)
