"""Every error edgeq raises on purpose, and the exit code each one gives the command line.

    EdgeqError
    ├── UsageError                 2  an option, recipe, profile or data set that cannot be used as given
    │   └── DataError              2  calibration or labelled data: missing, empty, wrong shape, NaN
    ├── ModelError                 3  the model cannot be read, or has parts edgeq does not support
    │   └── UnsupportedError       3  a layer or operator outside the tables, named with its place
    ├── DeviceError                7  something went wrong with a device
    │   ├── UnreachableError       4  no connection: name, route, port, time-out, dropped for good
    │   ├── AuthenticationError    5  the device refused the user or the key
    │   │   └── HostKeyError       5  the device's own key is unknown or has changed
    │   ├── LeaseError             6  somebody else holds the device
    │   ├── StorageError           7  disk full, read-only home, an upload that does not verify
    │   └── RunError               7  the run failed, was killed or timed out on the device
    └── BudgetError                8  a budget or gate was missed

The ground floor: this file imports nothing, and everything may import it.
"""

from __future__ import annotations


class EdgeqError(Exception):
    """The root of the tree. The message says what was tried, where, and what to do next.

    Args:
        tried: what was being done and what went wrong, in one sentence.
        where: the file, layer, tensor or device it concerns.
        hint: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, tried: str, *, where: str = "", hint: str = "") -> None:
        self.tried = tried
        self.where = where
        self.hint = hint
        super().__init__(tried)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  → {self.hint}" if self.hint else ""
        return f"{place}{self.tried}{advice}"


class UsageError(EdgeqError):
    """An option, recipe, profile or data set cannot be used as given."""

    exit_code = 2


class DataError(UsageError):
    """Calibration or labelled data is missing, empty, of the wrong shape, or holds NaN or Inf."""


class ModelError(EdgeqError):
    """The model cannot be read, written or run."""

    exit_code = 3


class UnsupportedError(ModelError):
    """A layer or operator is outside edgeq's tables; the message names it, its place and the way out."""


class DeviceError(EdgeqError):
    """Something went wrong with a device."""

    exit_code = 7


class UnreachableError(DeviceError):
    """No connection could be made, or it was lost for good."""

    exit_code = 4


class AuthenticationError(DeviceError):
    """The device refused the user or the key."""

    exit_code = 5


class HostKeyError(AuthenticationError):
    """The device's host key is unknown or differs from the one that was pinned."""


class LeaseError(DeviceError):
    """Somebody else holds the device; the message names them."""

    exit_code = 6


class StorageError(DeviceError):
    """The device cannot store what it needs: disk full, read-only home, an upload that does not verify."""


class RunError(DeviceError):
    """The run failed, was killed or timed out on the device."""


class BudgetError(EdgeqError):
    """A budget or gate was missed."""

    exit_code = 8
