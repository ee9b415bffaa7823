"""Where the divergence lies: by position in the window, by frequency of the token, by the reference's confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from awqbench.record.reader import Cell, Run
from awqbench.record.schema import GroupDifference, Metric
from awqbench.report import format as fmt
from awqbench.report import select
from awqbench.report.charts.bands import BandPoint, by_band
from awqbench.report.sections.suites import SuiteView, series

# What a band's rows are of, the fullest first: an engine that tells its top tokens alone has the last one only.
_FIGURES = ("kl", "top1-disagreement")


@dataclass(frozen=True)
class BandRow:
    """One band of one backend. `values` are the table's figures by name; `extra` is its contrast with the others."""

    band: str
    backend: str
    values: dict[str, Any]
    extra: GroupDifference | None


@dataclass(frozen=True)
class BandView:
    """All bands of one attribute on one path."""

    path: str
    attribute: str
    definition: str
    figure: str
    unit: str
    rows: list[BandRow]


def bands(run: Run, view: SuiteView) -> list[BandView]:
    """Views by path, attribute and figure, in the order they were measured; of candidates and controls."""
    names = series(run)
    found: dict[tuple[str, str, str], list[tuple[Cell, Metric]]] = {}
    for cell in view.cells:
        for metric in cell.result.metrics if cell.result.backend in names else ():
            path, _, what = metric.id.rpartition("/")
            figure, _, attribute = what.partition("-by-")
            if figure in _FIGURES and attribute:
                found.setdefault((path, attribute, figure), []).append((cell, metric))
    return [
        BandView(
            fmt.short(path, view.kind),
            attribute,
            own[0][1].protocol.rpartition("bands: ")[2],
            figure,
            own[0][1].unit,
            _rows(run, view, own, attribute),
        )
        for (path, attribute, figure), own in found.items()
    ]


def _rows(run: Run, view: SuiteView, own: list[tuple[Cell, Metric]], attribute: str) -> list[BandRow]:
    groups = {
        (g.metric, g.group, g.candidate): g
        for g in (run.comparison.groups if run.comparison else [])
        if (g.suite, g.attribute, g.baseline) == (view.name, attribute, select.reference_name(run))
    }
    order = select.unique(row["band"] for _, metric in own for row in metric.detail["bands"])
    return [
        BandRow(band, cell.result.backend, row, groups.get((metric.id, band, cell.result.backend)))
        for band in order
        for cell, metric in own
        for row in metric.detail["bands"]
        if row["band"] == band
    ]


def band_chart(run: Run, view: SuiteView, found: list[BandView]) -> Markup | None:
    """The first path's KL by every attribute, side by side; None where no engine told whole distributions."""
    chosen = [v for v in found if v.figure == _FIGURES[0] and v.path == found[0].path]
    if not chosen:
        return None
    points = [
        BandPoint(v.attribute, row.band, row.backend, row.values["kl"], row.values["low"], row.values["high"])
        for v in chosen
        for row in v.rows
    ]
    title = f"Mean KL to the reference by band, {chosen[0].path}, with its interval over windows"
    return by_band(points, series(run), chosen[0].unit, f"{view.name}-bands", title)
