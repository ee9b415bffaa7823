"""Why a GPU lowered its clocks: NVML's clocks-event-reasons bit mask.

Bits: NVML API reference, group "nvmlClocksEventReasons". A figure taken while the hardware protects itself is not the
device's; the software power cap is the normal state of a busy data-centre GPU, so it is noted and not counted.
"""

from __future__ import annotations

REASONS: dict[int, str] = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks",
}
POWER_CAP = 0x004
THROTTLING = 0x008 | 0x020 | 0x040 | 0x080


def names(mask: int) -> list[str]:
    """The reasons set in a mask, lowest bit first; unknown bits in hexadecimal."""
    bits = [1 << i for i in range(mask.bit_length()) if mask >> i & 1]
    return [REASONS.get(bit, hex(bit)) for bit in bits]


def throttled(mask: int) -> bool:
    """Whether a mask holds a reason that makes a timing untrustworthy."""
    return bool(mask & THROTTLING)
