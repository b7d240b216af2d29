"""Which boards there are: a processor, and whether its clock counts instructions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cpu(StrEnum):
    """A processor as QEMU names it."""

    CORTEX_A72 = "cortex-a72"
    CORTEX_A76 = "cortex-a76"
    NEOVERSE_N1 = "neoverse-n1"
    MAX = "max"

    @property
    def short(self) -> str:
        """The part of a board's name, and of its device profile's, that says which processor it has."""
        return self.removeprefix("cortex-").removeprefix("neoverse-")

    @property
    def features(self) -> str:
        """QEMU's -cpu option. Pointer authentication in the architecture's own cipher is slow to emulate.

        SVE has vectors of 128 bits, as on all cores of phones: QEMU's usual 512 made ONNX Runtime's u8 files
        look a third cheaper than they are there.
        """
        return "max,pauth-impdef=on,sve-max-vq=1" if self is Cpu.MAX else self.value


@dataclass(frozen=True)
class Kind:
    """A kind of board.

    Attributes:
        deterministic: one core whose clock advances by 1 ns per instruction (QEMU's -icount): counts of
            instructions repeat, and perf_event gives them. Without it two cores run as fast as they can.
    """

    cpu: Cpu = Cpu.CORTEX_A76
    deterministic: bool = False

    @property
    def name(self) -> str:
        """What a board of this kind is called unless the user says otherwise."""
        return self.profile + ("-deterministic" if self.deterministic else "")

    @property
    def profile(self) -> str:
        """The device profile of its processor."""
        return f"virtual-{self.cpu.short}"

    @property
    def cores(self) -> int:
        """How many cores it has."""
        return 1 if self.deterministic else 2
