"""The table of power sources. Each is a function of sysfs' place that yields meters or raises Unavailable."""

from __future__ import annotations

from typing import Callable, Dict, Iterator

from .power_hwmon import hwmon
from .power_iio import iio
from .power_kernel import power_supply, powercap
from .power_meter import Meter
from .power_tools import powermetrics, vcgencmd

SOURCES: Dict[str, Callable[[str], Iterator[Meter]]] = {
    "hwmon": hwmon,
    "iio": iio,
    "power_supply": power_supply,
    "powercap": powercap,
    "vcgencmd": vcgencmd,
    "powermetrics": powermetrics,
}
