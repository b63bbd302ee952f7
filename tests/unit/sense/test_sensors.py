"""Sensors over a folder of files such as a Raspberry Pi, a Jetson, a laptop or nothing has."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sense import PressureSample, Sensors
from agent.sense.device import DeviceSensors
from agent.sense.processes import Processes
from agent.sense.sensors import RESCAN_READS
from agent.update.ports import UpdateSensors

PI = {
    "proc/pressure/cpu": "some avg10=41.50 avg60=1.00 avg300=0.10 total=9\n",
    "proc/pressure/memory": "some avg10=2.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00\n",
    "proc/meminfo": "MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable: 262144 kB\n",
    "proc/stat": "cpu  100 0 100 800 0 0 0 0\ncpu0 1 0 1 8 0 0 0 0\ncpu1 1 0 1 8 0 0 0 0\n",
    "proc/loadavg": "8.00 1.00 1.00 1/2 3\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "61200\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "900000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_reads_a_raspberry_pi(tmp_path: Path) -> None:
    assert Sensors(write(tmp_path, PI)).read() == PressureSample(
        cpu_pressure_percent=41.5,
        cpu_pressure_source="psi",
        memory_pressure_percent=2.25,
        memory_available_mib=256.0,
        memory_total_mib=1024.0,
        load=8.0,
        temperature_celsius=61.2,
        clock_limit_share=0.5,
    )


def test_pressure_injected_later_is_seen_at_the_next_reading(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    assert sensors.read() == PressureSample()
    write(tmp_path, {"proc/pressure/cpu": "some avg10=88.00 avg60=0.00 avg300=0.00 total=0\n"})
    assert sensors.read().cpu_pressure_percent == 88.0


def test_pressure_follows_the_kernels_counter_and_not_its_slow_average(tmp_path: Path) -> None:
    now = [100.0]
    sensors = Sensors(tmp_path, clock=lambda: now[0])
    psi = "some avg10=5.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=0\n"
    found = []
    for elapsed_s, total_us in ((0.0, 1_000_000), (0.5, 1_400_000), (0.01, 1_400_500), (0.5, 9)):
        now[0] += elapsed_s
        write(tmp_path, {"proc/pressure/cpu": psi.format(total_us)})
        found.append(sensors.read().cpu_pressure_percent)
    first, measured, too_close, restarted = found
    assert first == 5.0 and measured == pytest.approx(80.0)
    assert too_close == restarted == 5.0, "the kernel's average stands in"


def test_a_low_power_mode_is_seen(tmp_path: Path) -> None:
    mode = "sys/firmware/acpi/platform_profile"
    sensors = Sensors(write(tmp_path, {mode: "balanced\n"}))
    assert not sensors.read().power_saving
    write(tmp_path, {mode: "low-power\n"})
    assert sensors.read().power_saving


def test_own_processes_are_measured_on_this_very_process() -> None:
    own = Processes()
    assert own.cpu_percent([os.getpid()]) is None
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    used = own.cpu_percent([os.getpid(), 2**22 + 1])
    assert used is not None and 0.0 < used <= 100.0


def test_a_process_id_used_again_does_not_count_as_the_old_one() -> None:
    now, stat = [0.0], {7: (100, 500)}
    line = "7 (a) b) c) S 1 1 1 0 -1 0 0 0 0 0 {busy} 0 0 0 20 0 1 0 {started} 0 0"

    def read(pid: int) -> bytes | None:
        return line.format(started=stat[pid][0], busy=stat[pid][1]).encode()

    own = Processes(clock=lambda: now[0], ticks_per_s=100, cores=2, read=read)
    own.cpu_percent([7])
    now[0], stat[7] = 1.0, (100, 550)
    assert own.cpu_percent([7]) == 25.0
    now[0], stat[7] = 2.0, (900, 600)
    assert own.cpu_percent([7]) == 0.0
    now[0], stat[7] = 3.0, (900, 700)
    assert own.cpu_percent([7]) == 50.0


def test_without_psi_the_load_stands_in_and_says_so(tmp_path: Path) -> None:
    files = {name: text for name, text in PI.items() if "pressure" not in name}
    sample = Sensors(write(tmp_path, files)).read()
    assert (sample.cpu_pressure_percent, sample.cpu_pressure_source) == (75.0, "loadavg")
    assert sample.memory_pressure_percent is None


def test_cpu_share_is_measured_between_readings(tmp_path: Path) -> None:
    sensors = Sensors(write(tmp_path, PI))
    assert sensors.read().cpu_percent is None
    write(tmp_path, {"proc/stat": "cpu  150 0 125 825 0 0 0 0\ncpu0 1 0 1 8 0 0 0 0\n"})
    assert sensors.read().cpu_percent == 75.0
    assert sensors.read().cpu_percent == 75.0, "too early for a new share: the last one stands"


def test_the_hottest_processor_zone_counts_and_odd_zones_do_not(tmp_path: Path) -> None:
    zones = {"CPU-therm": 47500, "GPU-therm": 44000, "tj-thermal": 49000, "PMIC-Die": 100000}
    for number, (kind, temp) in enumerate(zones.items()):
        folder = f"sys/class/thermal/thermal_zone{number}"
        write(tmp_path, {f"{folder}/type": kind, f"{folder}/temp": str(temp)})
    assert Sensors(tmp_path).read().temperature_celsius == 49.0


def test_a_board_with_other_zone_names_still_has_a_temperature(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    write(tmp_path, {f"{zone}/type": "acpitz", f"{zone}/temp": "55000"})
    assert Sensors(tmp_path).read().temperature_celsius == 55.0


def test_each_sign_of_throttling_counts(tmp_path: Path) -> None:
    sensors = Sensors(write(tmp_path, PI))
    assert not sensors.read().throttled, "get_throttled 0x50000 is history only"
    write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50004\n"})
    assert sensors.read().throttled
    write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n"})
    write(tmp_path, {"sys/class/thermal/cooling_device0/cur_state": "2\n"})
    assert sensors.read().throttled
    write(tmp_path, {"sys/class/thermal/cooling_device0/cur_state": "0\n"})
    count = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    assert [_read_with(sensors, tmp_path, count, n) for n in ("7", "7", "9", "9")] == [
        False,
        False,
        True,
        False,
    ]


def _read_with(sensors: Sensors, root: Path, name: str, text: str) -> bool:
    write(root, {name: text})
    return sensors.read().throttled


def test_a_fan_that_turns_is_not_throttling(tmp_path: Path) -> None:
    fan = "sys/class/thermal/cooling_device1"
    write(tmp_path, {f"{fan}/type": "pwm-fan", f"{fan}/cur_state": "3"})
    assert not Sensors(tmp_path).read().throttled


def test_batteries_of_the_device_count_and_a_mouse_does_not(tmp_path: Path) -> None:
    folder = "sys/class/power_supply"
    write(
        tmp_path,
        {
            f"{folder}/AC/type": "Mains",
            f"{folder}/BAT0/type": "Battery",
            f"{folder}/BAT0/capacity": "40\n",
            f"{folder}/BAT0/status": "Discharging\n",
            f"{folder}/BAT1/type": "Battery",
            f"{folder}/BAT1/capacity": "60\n",
            f"{folder}/BAT1/status": "Not charging\n",
            f"{folder}/mouse/type": "Battery",
            f"{folder}/mouse/scope": "Device",
            f"{folder}/mouse/capacity": "3\n",
            f"{folder}/mouse/status": "Discharging\n",
        },
    )
    sample = Sensors(tmp_path).read()
    assert (sample.battery_percent, sample.on_battery) == (50.0, True)


def test_folders_are_listed_again_after_a_while(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    sensors.read()
    write(tmp_path, PI)
    assert sensors.read().temperature_celsius is None
    heat = [sensors.read().temperature_celsius for _ in range(RESCAN_READS)]
    assert heat[-1] == 61.2


def test_pipes_folders_and_dangling_links_in_place_of_files_neither_block_nor_fail(
    tmp_path: Path,
) -> None:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    os.mkfifo(tmp_path / "proc/pressure/cpu")
    (tmp_path / "proc/pressure/memory").mkdir()
    (tmp_path / "proc/meminfo").symlink_to("nowhere")
    (tmp_path / "sys/class").mkdir(parents=True)
    (tmp_path / "sys/class/thermal").write_text("not a folder")
    assert Sensors(tmp_path).read() == PressureSample()


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(PI)), st.none() | st.binary(max_size=200)))
def test_any_subset_of_files_with_any_content_gives_a_sample(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes | None]
) -> None:
    root = tmp_path_factory.mktemp("root")
    for name, data in files.items():
        if data is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    sensors = Sensors(root)
    for _ in range(2):
        assert isinstance(sensors.read(), PressureSample)


def test_the_real_machine_gives_a_sample() -> None:
    sensors = Sensors()
    sample = sensors.read()
    assert sensors.latest is sample
    assert sample.memory_total_mib is None or sample.memory_total_mib > 0


# -- preflight ----------------------------------------------------------------------------------


def test_preflight_values_come_from_the_latest_sample(tmp_path: Path) -> None:
    folder = "sys/class/power_supply/BAT0"
    write(tmp_path, PI)
    write(
        tmp_path,
        {f"{folder}/type": "Battery", f"{folder}/capacity": "12", f"{folder}/status": "Charging"},
    )
    sensors = Sensors(tmp_path)
    device: UpdateSensors = DeviceSensors(sensors, tmp_path)
    assert device.battery_percent() is None
    assert device.cpu_headroom_percent() is None
    sensors.read()
    assert device.battery_percent() is None, "charging"
    write(
        tmp_path,
        {f"{folder}/status": "Discharging", "proc/stat": "cpu  110 0 100 890 0 0 0 0\n"},
    )
    sensors.read()
    assert device.battery_percent() == 12.0
    assert device.cpu_headroom_percent() == 90.0
    assert DeviceSensors(sensors, tmp_path).memory_headroom_percent() == 25.0


def test_a_processor_is_crowded_when_others_fill_it(tmp_path: Path) -> None:
    write(tmp_path, PI)
    sensors, own = Sensors(tmp_path), [0.0]
    device = DeviceSensors(sensors, tmp_path, lambda: own[0])
    assert not device.crowded(), "nothing is known yet"
    sensors.read()
    write(tmp_path, {"proc/stat": "cpu  1050 0 100 850 0 0 0 0\n"})
    sensors.read()
    assert device.crowded()
    own[0] = 60.0
    assert not device.crowded(), "it is the agent itself that fills it"
    own[0] = 0.0
    write(tmp_path, {"proc/stat": "cpu  1850 0 100 1050 0 0 0 0\n"})
    sensors.read()
    assert not device.crowded(), "there is room"


def test_free_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    here = DeviceSensors(Sensors(tmp_path), tmp_path).disk_free_bytes()
    later = DeviceSensors(Sensors(tmp_path), tmp_path / "a" / "b").disk_free_bytes()
    assert here > 0
    assert abs(here - later) < 1 << 30
    file = tmp_path / "file"
    file.write_text("")
    assert DeviceSensors(Sensors(tmp_path), file / "below").disk_free_bytes() == 0
