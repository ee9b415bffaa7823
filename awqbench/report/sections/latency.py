"""Speed by batch size, and the single figures: memory, load time, size on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from awqbench.record.reader import Run
from awqbench.record.schema import Metric
from awqbench.report import format as fmt
from awqbench.report import select
from awqbench.report.charts.bars import by_backend
from awqbench.report.charts.batch import BatchPoint, by_batch
from awqbench.report.sections.suites import SuiteView, series

_BATCH = re.compile(r"batch=(\d+)")


@dataclass(frozen=True)
class LatencyView:
    """Charts, and every metric by backend; a backend without the metric was not measured."""

    backends: list[str]
    reference: str | None
    metrics: dict[str, dict[str, Metric]]
    speed: Markup | None
    single: Markup | None


def latency(run: Run, view: SuiteView) -> LatencyView:
    """The suite's metrics by id and backend; the noise floor repeats the reference and is left to the tables."""
    backends = [c.result.backend for c in view.cells if c.result.role != "noise"]
    reference = select.reference_name(run)
    colours = select.unique([*([reference] if reference in backends and reference else []), *series(run)])
    table: dict[str, dict[str, Metric]] = {}
    for cell in view.cells:
        if cell.result.backend in backends:
            for metric in cell.result.metrics:
                table.setdefault(metric.id, {})[cell.result.backend] = metric
    return LatencyView(
        backends,
        reference,
        table,
        _speed(view, table, colours, reference),
        _single(view, table, colours, reference),
    )


def _speed(
    view: SuiteView, table: dict[str, dict[str, Metric]], backends: list[str], reference: str | None
) -> Markup | None:
    points = []
    for name, row in table.items():
        match = _BATCH.search(name)
        if match is None:
            continue
        # The rest of the id is the protocol; batch sizes of the same protocol form one line.
        measure = _BATCH.sub("", fmt.short(name, view.kind)).replace("@,", "@").replace(",,", ",").strip("/@,")
        for backend, m in row.items():
            if m.value is not None:
                points.append(
                    BatchPoint(
                        measure, m.unit, backend, int(match[1]), m.value, m.ci_low, m.ci_high, m.higher_is_better
                    )
                )
    if not points:
        return None
    return by_batch(
        points, backends, reference, f"{view.name}-speed", "Latency and throughput by batch size, one line per backend"
    )


def _single(
    view: SuiteView, table: dict[str, dict[str, Metric]], backends: list[str], reference: str | None
) -> Markup | None:
    measures: dict[str, tuple[str, dict[str, float]]] = {}
    for name, row in table.items():
        values = {backend: m.value for backend, m in row.items() if m.value is not None}
        if values and not _BATCH.search(name):
            measures[fmt.short(name, view.kind)] = (next(iter(row.values())).unit, values)
    if not measures:
        return None
    return by_backend(measures, backends, reference, f"{view.name}-single", "Memory, size and load time by backend")
