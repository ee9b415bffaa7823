"""Telemetry over time: a small multiple per cell, backends down and suites across."""

from __future__ import annotations

from typing import Any

import altair as alt
from markupsafe import Markup

from awqbench.report.charts.svg import MUTED, SERIES, rows, to_svg


def small_multiples(
    points: list[dict[str, Any]], backends: list[str], suites: list[str], name: str, title: str
) -> Markup:
    """Draw rows of {backend, suite, time, value}; time in seconds since the cell began."""
    width = max(90, min(230, 860 // len(suites)))
    # Vega lays a grid with holes out wrongly, so a cell that was not sampled gets an empty panel that says so.
    sampled = {(point["backend"], point["suite"]) for point in points}
    holes = [
        {"backend": backend, "suite": suite, "time": 0, "value": 0, "hole": "not sampled"}
        for backend in backends
        for suite in suites
        if (backend, suite) not in sampled
    ]
    base = alt.Chart(rows([*points, *holes]))
    curve = (
        base.transform_filter("!isValid(datum.hole)")
        .mark_area(line={"color": SERIES[0], "strokeWidth": 1.5}, color=SERIES[0], opacity=0.25, interpolate="linear")
        .encode(
            x=alt.X("time:Q", title=None, axis=alt.Axis(tickCount=3, grid=False, labelExpr="datum.label + ' s'")),
            y=alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=3), scale=alt.Scale(zero=True)),
        )
    )
    words = base.transform_filter("isValid(datum.hole)").mark_text(fontSize=11, color=MUTED)
    words = words.encode(x=alt.value(width / 2), y=alt.value(27), text="hole:N")
    grid = (
        alt.layer(curve, words)
        .properties(width=width, height=54)
        .facet(
            row=alt.Row("backend:N", sort=backends, title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
            column=alt.Column("suite:N", sort=suites, title=None),
        )
        .resolve_scale(x="independent", y="shared")
    )
    return to_svg(grid, name, title)
