"""The unit a chart's axis is drawn in."""

from __future__ import annotations

from awqbench.report.format import is_share


def axis_unit(unit: str, largest: float, change: bool = False) -> tuple[float, str]:
    """The factor that turns values of `unit` into axis values, and the axis's unit; `largest` picks the prefix."""
    if unit == "relative":
        return 100.0, "%"
    if is_share(unit):
        return 100.0, "percentage points" if change else "%"
    if unit in {"s", "seconds", "second"}:
        return (1e3, "ms") if abs(largest) < 1 else (1.0, "s")
    if unit in {"bytes", "byte", "B"}:
        return (1 / 2**30, "GiB") if abs(largest) >= 2**30 else (1 / 2**20, "MiB")
    return 1.0, unit
