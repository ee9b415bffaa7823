"""What the machine did meanwhile: one figure per signal, a small multiple per cell."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from awqbench.record.reader import Cell, Run
from awqbench.report import select
from awqbench.report.charts.series import small_multiples

POINTS = 80  # per curve: a small multiple has no room for more
# column pattern -> (label, axis unit, factor)
_SIGNALS = {
    r"host_cpu_percent": ("CPU of the worker", "% of one core", 1.0),
    r"host_rss_bytes": ("Resident memory of the worker", "GiB", 1 / 2**30),
    r"gpu\d+_power_w": ("power", "W", 1.0),
    r"gpu\d+_util_percent": ("utilization", "%", 1.0),
    r"gpu\d+_memory_used_bytes": ("memory used", "GiB", 1 / 2**30),
    r"gpu\d+_temperature_c": ("temperature", "°C", 1.0),
    r"gpu\d+_sm_clock_mhz": ("SM clock", "MHz", 1.0),
    r"gpu\d+_mem_clock_mhz": ("memory clock", "MHz", 1.0),
}


@dataclass(frozen=True)
class TelemetryView:
    """Host and GPU figures by heading; `gpu_notes` say in words why there are none."""

    host: dict[str, Markup]
    gpu: dict[str, Markup]
    gpu_notes: list[str]
    cells: list[Cell]


def telemetry(run: Run) -> TelemetryView:
    """Figures of all cells with a telemetry table, thinned to what a small multiple can show."""
    cells = [c for c in select.ordered(run.cells) if c.telemetry is not None and len(c.telemetry)]
    columns = select.unique(str(name) for c in cells for name in _frame(c).columns)
    host: dict[str, Markup] = {}
    gpu: dict[str, Markup] = {}
    for column in columns:
        for pattern, (label, unit, factor) in _SIGNALS.items():
            if re.fullmatch(pattern, column):
                device = f"GPU {column[3 : column.index('_')]} " if column.startswith("gpu") else ""
                title = f"{device}{label}, {unit}"
                if drawn := _figure(cells, column, title, factor):
                    (gpu if device else host)[title] = drawn
    summaries = [c.result.telemetry for c in run.cells if c.result.telemetry]
    notes = [] if gpu else select.unique(s.gpu_note for s in summaries if s.gpu_note)
    return TelemetryView(host, gpu, notes, [c for c in select.ordered(run.cells) if c.result.telemetry])


def _frame(cell: Cell) -> pd.DataFrame:
    assert cell.telemetry is not None
    return cell.telemetry


def _figure(cells: list[Cell], column: str, title: str, factor: float) -> Markup | None:
    points = []
    drawn = []
    for cell in cells:
        frame = _frame(cell)
        if column not in frame:
            continue
        frame = frame[["time_s", column]].dropna()
        if frame.empty:
            continue
        drawn.append(cell)
        for time, value in frame.iloc[:: max(1, len(frame) // POINTS)].to_numpy(dtype=float):
            points.append(
                {
                    "backend": cell.result.backend,
                    "suite": cell.result.suite,
                    "time": round(float(time), 3),
                    "value": float(value) * factor,
                }
            )
    if not points:
        return None
    backends = list(select.roles_of(drawn))
    suites = select.unique(c.result.suite for c in drawn)
    return small_multiples(points, backends, suites, f"telemetry-{column}", f"{title}, over the time of each cell")
