"""Who became biased, which group lost most, and the rates of stereotyped answers by group."""

from __future__ import annotations

from dataclasses import dataclass

from awqbench.record.reader import Run
from awqbench.record.schema import Difference, WorstGroup
from awqbench.report import select

_NAMES = {
    "selection_rate": "selection rate",
    "false_positive_rate": "false-positive rate",
    "false_negative_rate": "false-negative rate",
}


@dataclass(frozen=True)
class Rates:
    """The rates of the stereotyped answer of one attribute's groups: a row per group and backend, counts beside."""

    metric: str
    attribute: str
    names: list[str]
    rows: list[tuple[str, str, list[tuple[float, int] | None]]]


def turned(run: Run, suite: str) -> list[Difference]:
    """Differences to the reference that count newly biased and newly unbiased items."""
    return [d for d in select.differences(run, suite) if d.bias_flips is not None]


def lost_most(run: Run, suite: str) -> list[WorstGroup]:
    """The worst group of each attribute under each candidate, what chance explains least first."""
    found = run.comparison.worst_groups if run.comparison else []
    return sorted((w for w in found if w.suite == suite and w.role == "candidate"), key=lambda w: (w.p, -w.excess))


def label_rates(run: Run, suite: str) -> list[Rates]:
    """Tables by metric and attribute, of the reference and what is compared with it."""
    tables: dict[tuple[str, str], Rates] = {}
    for cell in select.ordered(run.cells):
        if cell.result.suite != suite or cell.result.role == "noise":
            continue
        for metric in cell.result.metrics:
            groups = metric.detail.get("groups")
            for attribute, table in groups.items() if isinstance(groups, dict) else ():
                rates = table.get("label_rates") if isinstance(table, dict) else None
                if rates:
                    names = [name for name in _NAMES if name in rates]
                    shown = [_NAMES[name] for name in names]
                    view = tables.setdefault((metric.id, attribute), Rates(metric.id, attribute, shown, []))
                    for group in select.unique(g for name in names for g in rates[name]["by_group"]):
                        values = [rates[name]["by_group"].get(group) for name in names]
                        view.rows.append(
                            (group, cell.result.backend, [(v["value"], v["n"]) if v else None for v in values])
                        )
    for view in tables.values():
        view.rows.sort(key=lambda row: row[0])
    return list(tables.values())
