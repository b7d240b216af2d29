#!/usr/bin/python3
"""The board's load: what its sensors read. The drivers are the kernel's own; the chips are memory (i2c-stub).

    edgeq-power start              makes the chips and binds their drivers (root, once per boot)
    edgeq-power set MV MA          a constant load
    edgeq-power play [--loop N]    rows "seconds,mV,mA" from stdin; prints what was visible from when on

`play` prints one line per row, "BEFORE_NS AFTER_NS MV MA" (CLOCK_MONOTONIC): the row's values became
visible between the two times and stay until the next row. MV and MA are what the INA226's registers hold,
after rounding.
Registers: INA226 data sheet SBOS547, table 4; INA3221 data sheet SBOS576, table 3; LM75 data sheet.
"""

import argparse
import ctypes
import fcntl
import glob
import os
import subprocess
import sys
import time

INA226, INA3221, LM75 = 0x40, 0x41, 0x48
MAKER, MAKER_TI, DIE = 0xFE, 0x5449, 0xFF

# INA226 with the driver's default shunt of 10 mOhm: 2.5 uV steps are 250 uA, a power step is 25 of them.
BUS_STEP_MV, CURRENT_STEP_MA, POWER_STEP_MW = 1.25, 0.25, 6.25
# INA3221, its first channel with 10 mOhm as well: steps of 40 uV and 8 mV, three bits up.
SHUNT_3221_STEP_MA, BUS_3221_STEP_MV = 4.0, 8.0

I2C_SLAVE_FORCE, I2C_SMBUS, WORD_DATA = 0x0706, 0x0720, 3
BATTERY = "/sys/module/test_power/parameters/"


class Data(ctypes.Union):
    """i2c_smbus_data of linux/i2c.h."""

    _fields_ = [("byte", ctypes.c_uint8), ("word", ctypes.c_uint16), ("block", ctypes.c_uint8 * 34)]


class Call(ctypes.Structure):
    """i2c_smbus_ioctl_data of linux/i2c-dev.h."""

    _fields_ = [
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.POINTER(Data)),
    ]


class Bus:
    """The stub's bus: words written into chips, in the chips' byte order."""

    def __init__(self) -> None:
        self.number = self._number()
        self._file = os.open(f"/dev/i2c-{self.number}", os.O_RDWR)

    @staticmethod
    def _number() -> str:
        for folder in glob.glob("/sys/bus/i2c/devices/i2c-*"):
            with open(folder + "/name") as name:
                if "SMBus stub" in name.read():
                    return folder.rpartition("-")[2]
        sys.exit("edgeq-power: no i2c-stub on this board")

    def write(self, chip: int, register: int, value: int) -> None:
        """Sets a register; the driver owns the chip, hence FORCE."""
        data = Data(word=((value & 0xFF) << 8) | (value >> 8) & 0xFF)
        fcntl.ioctl(self._file, I2C_SLAVE_FORCE, chip)
        fcntl.ioctl(self._file, I2C_SMBUS, Call(0, register, WORD_DATA, ctypes.pointer(data)))


def load(bus: Bus, millivolt: float, milliampere: float) -> tuple[float, float]:
    """Shows a load on every sensor; returns the INA226's own millivolts and milliamperes."""
    volt, ampere = round(millivolt / BUS_STEP_MV), round(milliampere / CURRENT_STEP_MA)
    shown = volt * BUS_STEP_MV, ampere * CURRENT_STEP_MA
    bus.write(INA226, 3, round(shown[0] * shown[1] / 1000 / POWER_STEP_MW))
    bus.write(INA226, 1, ampere)
    bus.write(INA226, 2, volt)
    bus.write(INA226, 4, ampere)
    bus.write(INA3221, 1, round(milliampere / SHUNT_3221_STEP_MA) << 3)
    bus.write(INA3221, 2, round(millivolt / BUS_3221_STEP_MV) << 3)
    battery(battery_voltage=round(shown[0] * 1000), battery_current=round(-shown[1] * 1000))
    return shown


def battery(**values: object) -> None:
    """Sets parameters of the kernel's test battery."""
    for name, value in values.items():
        with open(BATTERY + name, "w") as file:
            file.write(str(value))


def start() -> None:
    """Makes the chips, gives them the identity their drivers look for, and binds the drivers."""
    addresses = ",".join(map(hex, (INA226, INA3221, LM75)))
    subprocess.run(["modprobe", "i2c-stub", "chip_addr=" + addresses], check=True)
    bus = Bus()
    for chip, settings, die in ((INA226, 0x4127, 0x2260), (INA3221, 0x7127, 0x3220)):
        bus.write(chip, 0, settings)
        bus.write(chip, MAKER, MAKER_TI)
        bus.write(chip, DIE, die)
    bus.write(LM75, 0, 38 << 8)
    for driver in ("ina2xx", "ina3221", "lm75"):
        subprocess.run(["modprobe", driver], check=True)
    for name, chip in (("ina226", INA226), ("ina3221", INA3221), ("lm75", LM75)):
        with open(f"/sys/bus/i2c/devices/i2c-{bus.number}/new_device", "w") as file:
            file.write(f"{name} {chip:#x}")
    load(bus, 5000, 400)
    battery(battery_status="discharging", ac_online="off", usb_online="off")
    os.chmod(f"/dev/i2c-{bus.number}", 0o666)  # the unprivileged user plays loads
    for path in glob.glob(BATTERY + "*"):
        os.chmod(path, 0o666)


def play(rows: list[list[float]], loops: int) -> None:
    """Plays rows of (seconds, mV, mA) against the clock, `loops` times."""
    bus = Bus()
    for _ in range(loops):
        began = time.monotonic()
        for seconds, millivolt, milliampere in rows:
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            before = time.monotonic_ns()
            shown = load(bus, millivolt, milliampere)
            print(before, time.monotonic_ns(), *shown, flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start")
    constant = commands.add_parser("set")
    constant.add_argument("millivolt", type=float)
    constant.add_argument("milliampere", type=float)
    commands.add_parser("play").add_argument("--loop", type=int, default=1)
    given = parser.parse_args()
    if given.command == "start":
        start()
    elif given.command == "set":
        load(Bus(), given.millivolt, given.milliampere)
    else:
        play([list(map(float, line.split(","))) for line in sys.stdin if line.strip()], given.loop)


if __name__ == "__main__":
    main()
