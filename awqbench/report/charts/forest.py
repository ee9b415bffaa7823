"""Forest plot of differences: interval, point, noise floor band and limit of each candidate on each metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from awqbench.report import format as fmt
from awqbench.report.charts.svg import FLOOR, INK, LIMIT, MUTED, palette, rows, to_svg
from awqbench.report.charts.units import axis_unit

WIDTH = 560


@dataclass(frozen=True)
class ForestRow:
    """One interval, amounts in `unit`. `note` replaces the figure at the right; a row without delta is only that."""

    label: str
    series: str
    unit: str
    delta: float | None
    low: float | None = None
    high: float | None = None
    noise: float | None = None
    limit: float | None = None
    higher_is_better: bool | None = None
    note: str | None = None

    @property
    def extent(self) -> float:
        """The farthest this row reaches from zero."""
        reach = (self.delta, self.low, self.high, self.noise, self.limit)
        return max((abs(x) for x in reach if x is not None), default=0.0)


def panels(all_rows: list[ForestRow], spread: float = 20.0) -> list[list[ForestRow]]:
    """Rows that can share an axis: same unit and direction, and no row so small beside another that it vanishes."""
    groups: dict[tuple[str, bool | None], list[ForestRow]] = {}
    for row in all_rows:
        groups.setdefault((row.unit, row.higher_is_better), []).append(row)
    result = []
    for group in groups.values():
        by_label: dict[str, list[ForestRow]] = {}
        for row in group:
            by_label.setdefault(row.label, []).append(row)
        reach = [max(row.extent for row in same) for same in by_label.values()]
        if max(reach) <= spread * min(reach) or max(reach) == 0:
            result.append(group)
        else:
            result += list(by_label.values())
    return result


def forest(panel: list[ForestRow], series: list[str], name: str, title: str) -> Markup:
    """Draw one panel. `series` names all the page's candidates: each keeps its colour and shape in every chart."""
    unit, better = panel[0].unit, panel[0].higher_is_better
    factor, shown = axis_unit(unit, max(row.extent for row in panel), change=True)
    present = [s for s in series if any(row.series == s for row in panel)]
    labels = list(dict.fromkeys(row.label for row in panel))
    data = rows([_datum(row, factor) for row in panel])
    step = 20 if len(present) > 1 else 26
    y = alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(domain=False, ticks=False, labelPadding=10))
    offset = alt.YOffset("series:N", sort=present)
    colours, shapes = palette(series)
    legend = alt.Legend(values=present) if len(series) > 1 else None
    colour = alt.Color("series:N", scale=colours, legend=legend)
    x = alt.X("delta:Q", title=_axis_title(shown, better), axis=alt.Axis(tickCount=7, domain=False))
    base = alt.Chart(data).encode(y=y)
    layers: list[Any] = [
        base.transform_filter("isValid(datum.noise)")
        .mark_bar(color=FLOOR, opacity=0.9)
        .encode(x=alt.X("noise_low:Q"), x2="noise:Q", yOffset=offset),
        alt.Chart(rows([{"zero": 0}])).mark_rule(color=MUTED).encode(x="zero:Q"),
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(strokeWidth=2.5)
        .encode(x="low:Q", x2="high:Q", yOffset=offset, color=colour),
        base.transform_filter("isValid(datum.limit)")
        .mark_tick(color=LIMIT, thickness=3, height=step - 4)
        .encode(x="limit:Q", yOffset=offset),
        base.transform_filter("isValid(datum.delta)")
        .mark_point(filled=True, size=80, opacity=1)
        .encode(x=x, yOffset=offset, color=colour, shape=alt.Shape("series:N", scale=shapes, legend=legend)),
        base.mark_text(align="left", fontSize=12, color=INK).encode(
            x=alt.value(WIDTH + 12), yOffset=offset, text="text:N"
        ),
    ]
    chart = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(step, **{"for": "offset"}))
    return to_svg(chart, name, title)


def _datum(row: ForestRow, factor: float) -> dict[str, Any]:
    def scaled(amount: float | None) -> float | None:
        return None if amount is None else amount * factor

    noise = None if row.noise is None else abs(row.noise) * factor
    return {
        "label": row.label,
        "series": row.series,
        "delta": scaled(row.delta),
        "low": scaled(row.low),
        "high": scaled(row.high),
        "limit": scaled(row.limit),
        "noise": noise,
        "noise_low": None if noise is None else -noise,
        "text": row.note or fmt.delta(row.delta, row.unit),
    }


def _axis_title(unit: str, higher_is_better: bool | None) -> str:
    text = f"difference, {unit}" if unit else "difference"
    if higher_is_better is None:
        return text
    return f"← worse   ·   {text}   ·   better →" if higher_is_better else f"← better   ·   {text}   ·   worse →"
