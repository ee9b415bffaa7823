"""One section per suite: the forest plots, the table of differences, what stands behind each figure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from awqbench.record.reader import Cell, Run
from awqbench.record.schema import Difference, Metric
from awqbench.report import format as fmt
from awqbench.report import select
from awqbench.report.charts.forest import ForestRow, forest, panels
from awqbench.report.charts.quantiles import tail

_TITLES = {
    "perplexity": "Perplexity",
    "divergence": "Divergence from the reference",
    "tasks": "Task accuracy",
    "fairness": "Fairness",
    "latency": "Speed, memory and size",
}
_LEADS = {
    "perplexity": "How much worse does the model predict text it has not seen? Lower is better.",
    "divergence": "How far do the predicted distributions move, on the prefill path (whole windows) and on the decode "
    "path (one token at a time through the KV cache)? Zero means identical.",
    "tasks": "Does the model still answer correctly, item by item?",
    "fairness": "Did compression cost some groups more than others?",
    "latency": "What does quantization save, and at which batch size?",
}


@dataclass(frozen=True)
class SuiteView:
    """Everything the template shows of one suite."""

    name: str
    kind: str
    title: str
    lead: str
    cells: list[Cell]
    differences: list[Difference]
    head_to_head: list[Difference]
    protocols: dict[str, str]
    forests: list[Markup]

    @property
    def missing(self) -> list[Cell]:
        """Cells that gave no figures."""
        return [cell for cell in self.cells if cell.result.status != "ok"]


def suites(run: Run) -> list[SuiteView]:
    """Views in display order."""
    cells = select.ordered(run.cells)
    views = []
    for name in select.unique(c.result.suite for c in cells):
        own = [c for c in cells if c.result.suite == name]
        kind = own[0].result.kind
        found = select.differences(run, name)
        title = _TITLES.get(kind, kind.capitalize())
        views.append(
            SuiteView(
                name=name,
                kind=kind,
                title=title if name == kind else f"{title}: {name}",
                lead=_LEADS.get(kind, ""),
                cells=own,
                differences=found,
                head_to_head=select.head_to_head(run, name),
                protocols={m.id: m.protocol for c in own for m in c.result.metrics},
                forests=[] if kind == "latency" else _forests(run, name, kind, found),
            )
        )
    return views


def _forests(run: Run, suite: str, kind: str, found: list[Difference]) -> list[Markup]:
    rows = [
        ForestRow(
            label=fmt.short(d.metric, kind),
            series=d.candidate,
            unit=d.delta_unit,
            delta=d.delta,
            low=d.ci_low,
            high=d.ci_high,
            noise=d.noise if d.noise_reach is None else d.noise_reach,
            limit=select.limit(run, d),
            higher_is_better=d.higher_is_better,
        )
        for d in found
        # A figure without an interval is a fact of the table, not an estimate to plot.
        if d.delta is not None and d.ci_low is not None
    ]
    names = series(run)
    return [
        forest(panel, names, f"{suite}-forest-{i}", _describe(suite, panel)) for i, panel in enumerate(panels(rows))
    ]


def series(run: Run) -> list[str]:
    """Backends that are compared with the reference, in the order that gives each its colour everywhere."""
    return [name for name, role in select.roles(run).items() if role in ("candidate", "control")]


def _describe(suite: str, panel: list[ForestRow]) -> str:
    parts = [
        f"{row.series} on {row.label}: {fmt.delta(row.delta, row.unit)} "
        f"(interval {fmt.interval(row.low, row.high, row.unit)})"
        for row in panel[:12]
    ]
    return f"Differences to the reference, suite {suite}. " + "; ".join(parts)


@dataclass(frozen=True)
class PercentileRow:
    """The distribution behind one metric of one backend."""

    metric: Metric
    backend: str
    values: dict[str, float]


def percentiles(view: SuiteView) -> tuple[list[str], list[PercentileRow]]:
    """Percentile labels, ascending, and the rows of all metrics that recorded them."""
    rows = []
    for cell in view.cells:
        if cell.result.role != "reference":
            for metric in cell.result.metrics:
                if values := percentile_values(metric):
                    rows.append(PercentileRow(metric, cell.result.backend, values))
    rows.sort(key=lambda row: row.metric.id)
    labels = sorted({label for row in rows for label in row.values}, key=_rank)
    return labels, rows


def percentile_values(metric: Metric) -> dict[str, float]:
    """The entries of a metric's detail named p50, p99.9, max ...: {label: value in the metric's unit}."""
    found = {
        k: v for k, v in metric.detail.items() if re.fullmatch(r"p\d+(\.\d+)?|max", k) and isinstance(v, int | float)
    }
    return {k: float(found[k]) for k in sorted(found, key=_rank)} if len(found) > 1 else {}


def _rank(label: str) -> float:
    return 101.0 if label == "max" else float(label.removeprefix("p"))


def tail_chart(run: Run, view: SuiteView) -> Markup | None:
    """The tail of the suite's first distribution on each path, for the backends that are compared."""
    labels, rows = percentiles(view)
    names = series(run)
    whats = select.unique(row.metric.id.rsplit("/", 1)[-1] for row in rows)
    values = [
        (fmt.short(row.metric.id, view.kind), row.backend, label, value)
        for row in rows
        if row.backend in names and row.metric.id.rsplit("/", 1)[-1] == whats[0]
        for label, value in row.values.items()
    ]
    if not any(value > 0 for *_, value in values):
        return None
    unit = rows[0].metric.unit
    return tail(values, labels, names, unit, f"{view.name}-tail", f"Percentiles of {whats[0]} over positions, {unit}")
