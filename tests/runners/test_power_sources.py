"""Power sources against sysfs trees as the kernels' documentation lays them out, and the sampler."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeq.runners.agent import facts, power
from edgeq.runners.agent.power_meter import Meter, Rail
from edgeq.runners.agent.power_sources import SOURCES
from edgeq.runners.agent.power_tools import power_samples


def tree(root: Path, files: Mapping[str, object]) -> str:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return str(root)


def one_meter(root: Path, source: str, files: Mapping[str, object]) -> Meter:
    (meter,), missing = power.find(tree(root, files), (source,))
    assert missing == {}
    return meter


def readings(meter: Meter) -> dict[str, float | None]:
    return dict(zip([rail.name for rail in meter.rails], meter.read(), strict=True))


def test_an_ina226_gives_power_with_its_interval_and_resolution(tmp_path: Path) -> None:
    meter = one_meter(
        tmp_path,
        "hwmon",
        {
            "class/hwmon/hwmon0/name": "cpu_thermal",
            "class/hwmon/hwmon0/temp1_input": 45000,
            "class/hwmon/hwmon3/name": "ina226",
            "class/hwmon/hwmon3/power1_input": 1250000,
            "class/hwmon/hwmon3/curr1_input": 250,
            "class/hwmon/hwmon3/in1_input": 5000,
            "class/hwmon/hwmon3/update_interval": 35,
            "class/hwmon/hwmon3/shunt_resistor": 10000,
        },
    )
    assert readings(meter) == {"ina226/power1": 1.25}
    assert meter.rails[0].unit == "W"
    assert meter.update_interval_s == pytest.approx(0.035)
    assert meter.poll_s == pytest.approx(0.0175)
    assert meter.rails[0].resolution == pytest.approx(0.00625)  # 25 * 2.5 uV / 10 mOhm


def test_an_ina3221_gives_current_times_voltage_of_the_enabled_rails(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon1"
    files: dict[str, object] = {f"{chip}/name": "ina3221"}
    for i, (rail, milliamps) in enumerate([("VDD_IN", 1000), ("VDD_CPU", 400), ("VDD_SOC", 0)], start=1):
        files |= {
            f"{chip}/in{i}_label": rail,
            f"{chip}/in{i}_input": 5000,
            f"{chip}/in{i}_enable": int(i < 3),
        }
        files |= {f"{chip}/curr{i}_input": milliamps}
    assert readings(one_meter(tmp_path, "hwmon", files)) == {"VDD_IN": 5.0, "VDD_CPU": 2.0}


def test_a_battery_that_hwmon_shows_again_is_left_to_power_supply(tmp_path: Path) -> None:
    """Its gauge lies while charging, which only power_supply looks at."""
    chip = "class/hwmon/hwmon4"
    files = {f"{chip}/name": "BAT0", f"{chip}/device/type": "Battery", f"{chip}/power1_input": 9_000_000}
    assert "hwmon" in power.find(tree(tmp_path, files), ("hwmon",))[1]


def test_an_averaging_meter_tells_its_interval(tmp_path: Path) -> None:
    chip = "class/hwmon/hwmon0"
    files = {f"{chip}/name": "power_meter", f"{chip}/power1_average": 42_000_000}
    meter = one_meter(tmp_path, "hwmon", {**files, f"{chip}/power1_average_interval": 1000})
    assert readings(meter) == {"power_meter/power1": 42.0}
    assert (meter.update_interval_s, meter.poll_s) == (1.0, 0.5)


def test_hwmon_energy_counters_are_joules(tmp_path: Path) -> None:
    files = {"class/hwmon/hwmon0/name": "ina238", "class/hwmon/hwmon0/energy1_input": 7_000_000}
    meter = one_meter(tmp_path, "hwmon", files)
    assert readings(meter) == {"ina238/energy1": 7.0}
    assert meter.rails[0].unit == "J"


def test_a_pixels_power_monitor(tmp_path: Path) -> None:
    text = "t=473848\nCH0(T=473848)[S10M_VDD_TPU], 3161249\nCH1(T=473848)[VSYS_PWR_MODEM], 48192"
    folder = "bus/iio/devices/iio:device0"
    meter = one_meter(tmp_path, "iio", {f"{folder}/energy_value": text, f"{folder}/sampling_rate": "125.0"})
    assert readings(meter) == pytest.approx({"S10M_VDD_TPU": 3.161249, "VSYS_PWR_MODEM": 0.048192})
    assert {rail.unit for rail in meter.rails} == {"J"}
    assert meter.update_interval_s == pytest.approx(0.008)


def test_iio_channels_with_their_scales(tmp_path: Path) -> None:
    folder = "bus/iio/devices/iio:device1"
    files = {
        f"{folder}/name": "pac1934",
        f"{folder}/in_energy1_raw": 1000,
        f"{folder}/in_energy1_scale": 0.002,
        f"{folder}/in_energy1_label": "VDD",
        f"{folder}/in_power1_raw": 1,
    }
    meter = one_meter(tmp_path, "iio", files)
    assert readings(meter) == {"pac1934/VDD": 2.0}
    watts = {f"{folder}/name": "adm", f"{folder}/in_power0_raw": 30, f"{folder}/in_power_scale": 100}
    assert readings(one_meter(tmp_path / "w", "iio", watts)) == {"adm/power0": 3.0}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_discharging_battery(tmp_path: Path, sign: int) -> None:
    folder = "class/power_supply/battery"
    files = {f"{folder}/type": "Battery", f"{folder}/status": "Discharging"}
    files |= {f"{folder}/current_now": 500_000 * sign, f"{folder}/voltage_now": 4_000_000}
    assert readings(one_meter(tmp_path, "power_supply", files)) == {"battery": 2.0}


def test_a_charging_battery_gives_a_reason_and_no_number(tmp_path: Path) -> None:
    files = {"class/power_supply/b/type": "Battery", "class/power_supply/b/status": "Charging"}
    meters, missing = power.find(tree(tmp_path, files), ("power_supply",))
    assert meters == []
    assert "Charging" in missing["power_supply"]


def test_rapl_counters_with_their_wrap(tmp_path: Path) -> None:
    files: dict[str, object] = {}
    for zone, name, value in [("0", "package-0", 5_000_000), ("0:0", "core", 2_000_000)]:
        folder = f"class/powercap/intel-rapl:{zone}"
        files |= {f"{folder}/name": name, f"{folder}/energy_uj": value}
        files |= {f"{folder}/max_energy_range_uj": 262_143_328_850}
    meter = one_meter(tmp_path, "powercap", files)
    assert readings(meter) == {"package-0": 5.0, "package-0/core": 2.0}
    assert meter.rails[0].wrap == pytest.approx(262143.32885)


def test_a_raspberry_pi_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "vcgencmd"
    lines = ["3V7_WL_SW_A current(0)=0.10A", "VDD_CORE_A current(7)=2.0A", "3V7_WL_SW_V volt(8)=3.7V"]
    lines += ["VDD_CORE_V volt(15)=0.8V", "EXT5V_V volt(24)=5.1V"]
    tool.write_text("#!/bin/sh\n" + "\n".join(f"echo '  {line}'" for line in lines) + "\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (meter,), _ = power.find(str(tmp_path), ("vcgencmd",))
    assert readings(meter) == pytest.approx({"3V7_WL_SW": 0.37, "VDD_CORE": 1.6})
    tool.write_text("#!/bin/sh\necho 'error=1 error_msg=\"Command not registered\"'\n")
    assert "only a Raspberry Pi 5" in power.find(str(tmp_path), ("vcgencmd",))[1]["vcgencmd"]


APPLE_SILICON = """
Machine model: MacBookPro17,1
*** Sampled system activity (Thu Oct  8 14:10:00 2026 +0200) (201.50ms elapsed) ***

**** Processor usage ****

E-Cluster Power: 40 mW
E-Cluster HW active frequency: 1049 MHz
CPU 0 frequency: 1080 MHz
CPU Power: 823 mW
GPU Power: 26 mW
ANE Power: 323 mW
Combined Power (CPU + GPU + ANE): 1172 mW

*** Sampled system activity (Thu Oct  8 14:10:00 2026 +0200) (400.00ms elapsed) ***
CPU Power: 2000 mW
GPU Power: 0 mW
ANE Power: 0 mW
Combined Power (CPU + GPU + ANE): 2000 mW
GPU HW active frequency: 444 MHz
"""


def test_samples_of_powermetrics() -> None:
    (watts, seconds), second = power_samples(APPLE_SILICON.splitlines())
    rails = {"E-Cluster": 0.04, "CPU": 0.823, "GPU": 0.026, "ANE": 0.323, "Combined": 1.172}
    assert (watts, seconds) == (pytest.approx(rails), pytest.approx(0.2015))
    assert second == ({"CPU": 2.0, "GPU": 0.0, "ANE": 0.0, "Combined": 2.0}, 0.4)
    cut = "*** Sampled system activity (x) (5.00ms elapsed) ***\nCPU Power: 1.5 W\nGPU Po"
    assert list(power_samples(cut.splitlines())) == [({"CPU": 1.5}, 0.005)]


def test_powermetrics_tells_why_it_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> str:
        return power.find(str(tmp_path), ("powermetrics",))[1]["powermetrics"]

    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not macOS" in told()
    (tmp_path / "powermetrics").write_text("#!/bin/sh\necho 'unrecognized sampler: cpu_power' >&2; exit 64\n")
    (tmp_path / "powermetrics").chmod(0o755)
    monkeypatch.setattr("os.geteuid", lambda: 501)
    assert "root" in told()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "unrecognized sampler" in told()


def test_an_empty_device_gives_a_reason_for_every_source(tmp_path: Path) -> None:
    meters, missing = power.find(str(tmp_path), ("auto",))
    assert meters == []
    assert set(missing) == set(SOURCES)
    assert all(missing.values())
    assert "knows no such source" in power.find(str(tmp_path), ("solar",))[1]["solar"]
    assert all(told.startswith("unavailable: ") for told in power.describe(str(tmp_path)).values())


def test_a_reading_that_fails_leaves_a_gap_and_no_zero(tmp_path: Path) -> None:
    values = iter([1.0, None, 3.0])
    exhausted = threading.Event()

    def read() -> list[float | None]:
        try:
            return [next(values)]
        except StopIteration:
            exhausted.set()
            return [None]

    meter = Meter("hwmon", [Rail("r", "W")], read, 0.0, 0.001)
    sampler = power.Sampler([meter])
    sampler.start()
    assert exhausted.wait(30)
    (series,) = sampler.stop()
    assert series["values"] == [1.0, 3.0]
    assert series["times_ns"] == sorted(series["times_ns"])


def test_a_snapshot_tells_clock_heat_and_throttling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = "devices/system/cpu/cpufreq/policy0"
    files = {
        f"{cpu}/scaling_governor": "ondemand",
        f"{cpu}/scaling_cur_freq": 600000,
        f"{cpu}/cpuinfo_max_freq": 1800000,
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        "class/thermal/thermal_zone0/temp": 81234,
        "class/thermal/cooling_device0/type": "thermal-cpufreq-0",
        "class/thermal/cooling_device0/cur_state": 2,
    }
    monkeypatch.setenv("EDGEQ_SYSFS", tree(tmp_path, files))
    seen = facts.snapshot()
    assert seen["governor"] == "ondemand"
    assert (seen["frequency_hz"], seen["max_frequency_hz"]) == ([600_000_000], [1_800_000_000])
    assert seen["temperature_c"] == {"cpu-thermal": 81.234}
    assert seen["throttled"] is True
    pi = "devices/platform/soc/soc:firmware/get_throttled"
    monkeypatch.setenv("EDGEQ_SYSFS", tree(tmp_path / "pi", {pi: "50000"}))
    assert facts.throttled() is False  # it was throttled earlier, it is not now
    monkeypatch.setenv("EDGEQ_SYSFS", tree(tmp_path / "pi", {pi: "50005"}))
    assert facts.throttled() is True
