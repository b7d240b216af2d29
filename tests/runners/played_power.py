"""Power signals whose energy is known in closed form, played in real time through every kind of source.

A thread writes a sysfs tree, as the sensors' drivers would; vcgencmd and powermetrics are small programs. A
sensor shows the mean power since its last update, however late that update comes on a busy host, so
the truth is the integral itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

UPDATE_S = 0.02
WRAP_UJ = 7_000_000


def square(t: float) -> float:
    """Joules of 2 W, and 8 W in the second half of every 0.74 s."""
    whole, rest = divmod(t, 0.74)
    return 2.0 * t + 6.0 * (0.37 * whole + max(rest - 0.37, 0.0))


def ramp(t: float) -> float:
    """Joules of 1 W that rises by 1.5 W a second."""
    return t + 0.75 * t * t


def spikes(t: float) -> float:
    """Joules of 1 W with a spike of 20 W for 30 ms every 0.21 s."""
    whole, rest = divmod(t, 0.21)
    return t + 19.0 * (0.03 * whole + min(rest, 0.03))


SIGNALS: Mapping[str, Callable[[float], float]] = {"square": square, "ramp": ramp, "spikes": spikes}
PEAK_W = {"square": 8.0, "ramp": 10.0, "spikes": 20.0}

INA226, INA238, INA3221 = (f"class/hwmon/hwmon{i}" for i in (1, 2, 3))
ODPM, PAC1934 = (f"bus/iio/devices/iio:device{i}" for i in (0, 1))
BATTERY, RAPL = "class/power_supply/BAT0", "class/powercap/intel-rapl:0"
STILL: Mapping[str, object] = {
    f"{INA226}/name": "ina226",
    f"{INA226}/shunt_resistor": 10000,
    f"{INA226}/update_interval": int(UPDATE_S * 1000),
    f"{INA238}/name": "ina238",
    f"{INA3221}/name": "ina3221",
    f"{INA3221}/in1_label": "VDD_IN",
    f"{INA3221}/in1_input": 5000,
    f"{INA3221}/shunt1_resistor": 5000,
    f"{INA3221}/update_interval": int(UPDATE_S * 1000),
    f"{ODPM}/sampling_rate": 1 / UPDATE_S,
    f"{PAC1934}/name": "pac1934",
    f"{PAC1934}/in_power1_scale": 0.5,
    f"{BATTERY}/type": "Battery",
    f"{BATTERY}/status": "Discharging",
    f"{BATTERY}/voltage_now": 4_000_000,
    f"{RAPL}/name": "package-0",
    f"{RAPL}/max_energy_range_uj": WRAP_UJ,
}


def moving(watts: float, joules: float) -> dict[str, object]:
    """The files that change, from the mean power of the last update and the energy up to it."""
    counter_uj = int(joules * 1e6)
    return {
        f"{INA226}/power1_input": round(watts / 0.00625) * 6250,
        f"{INA238}/energy1_input": counter_uj,
        f"{INA3221}/curr1_input": round(watts / 5.0 / 0.008) * 8,
        f"{ODPM}/energy_value": f"t=1\nCH0(T=1)[S2M_VDD_CPUCL1], {counter_uj}",
        f"{PAC1934}/in_power1_raw": round(watts * 1e3 / 0.5),
        f"{BATTERY}/current_now": -round(watts / 4.0 * 1e6),
        f"{RAPL}/energy_uj": counter_uj % WRAP_UJ,
        "pmic": f"  VDD_CORE_A current(7)={watts / 0.8:.8f}A\n  VDD_CORE_V volt(15)=0.80000000V",
    }


@dataclass
class Player:
    """Plays one signal from `start_s` of the monotonic clock; `largest_gap_s` is its longest delay."""

    root: Path
    signal: Callable[[float], float]
    start_s: float = field(default_factory=time.monotonic)
    largest_gap_s: float = UPDATE_S
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Player:
        for name, content in STILL.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(f"{content}\n")
        self._write(0.0, 0.0)
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """The true energy between two moments of the monotonic clock."""
        return self.signal(end_ns * 1e-9 - self.start_s) - self.signal(start_ns * 1e-9 - self.start_s)

    def _play(self) -> None:
        last = time.monotonic() - self.start_s
        while not self._stop.wait(UPDATE_S):
            now = time.monotonic() - self.start_s
            joules = self.signal(now)
            self._write((joules - self.signal(last)) / (now - last), joules)
            shown = time.monotonic() - self.start_s
            self.largest_gap_s = max(self.largest_gap_s, shown - last)
            last = now

    def _write(self, watts: float, joules: float) -> None:
        for name, content in moving(watts, joules).items():
            part = self.root / "part"
            part.write_text(f"{content}\n")
            os.replace(part, self.root / name)  # as in sysfs, nobody sees half a number


def powermetrics(signal: Callable[[float], float], start_s: float, period_s: float, count: int) -> None:
    """Prints samples as macOS' tool does; a count of 0 goes on until it is killed."""
    last = time.monotonic() - start_s
    done = 0
    while count == 0 or done < count:
        time.sleep(period_s)
        now = time.monotonic() - start_s
        milliwatts = (signal(now) - signal(last)) / (now - last) * 1e3
        elapsed = f"({(now - last) * 1e3:.2f}ms elapsed)"
        print(f"*** Sampled system activity (Thu Oct  8 14:10:00 2026 +0200) {elapsed} ***")
        print("\n**** Processor usage ****\n\nE-Cluster HW active frequency: 1049 MHz\n")
        print(
            f"CPU Power: {milliwatts * 0.75:.0f} mW\nGPU Power: 0 mW\nANE Power: {milliwatts * 0.25:.0f} mW"
        )
        print(f"Combined Power (CPU + GPU + ANE): {milliwatts:.0f} mW\n", flush=True)
        last, done = now, done + 1


def write_programs(folder: Path, root: Path, signal: str, start_s: float) -> None:
    """vcgencmd and powermetrics as programs in a folder that goes into PATH."""
    folder.mkdir()
    told = f"[ \"$1\" = pmic_read_adc ] && exec cat '{root}/pmic'"
    played = f"exec '{sys.executable}' -S '{__file__}' {signal} {start_s!r} \"$@\""
    for name, line in (("vcgencmd", told), ("powermetrics", played)):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    options = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
    period = int(options["-i"]) / 1000
    powermetrics(SIGNALS[sys.argv[1]], float(sys.argv[2]), period, int(options.get("-n", "0")))
