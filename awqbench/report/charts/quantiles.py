"""The tail of a distribution: percentiles of the divergence on a logarithmic axis."""

from __future__ import annotations

import altair as alt
from markupsafe import Markup

from awqbench.report.charts.svg import palette, rows, to_svg


def tail(
    values: list[tuple[str, str, str, float]], order: list[str], backends: list[str], unit: str, name: str, title: str
) -> Markup:
    """Draw (panel, backend, percentile label, value) points; zero and negative values have no place on the axis."""
    colours, shapes = palette(backends)
    data = rows([{"panel": p, "backend": b, "at": at, "value": v} for p, b, at, v in values if v > 0])
    base = alt.Chart(data).encode(
        x=alt.X("at:O", sort=order, title="percentile over positions", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=unit, scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=5, domain=False)),
        color=alt.Color("backend:N", scale=colours),
    )
    layered = alt.layer(
        base.mark_line(strokeWidth=1.5, opacity=0.7),
        base.mark_point(filled=True, size=70, opacity=1).encode(shape=alt.Shape("backend:N", scale=shapes)),
    ).properties(width=400, height=190)
    panels = list(dict.fromkeys(p for p, *_ in values))
    chart = layered.facet(column=alt.Column("panel:N", sort=panels, title=None), spacing=40)
    return to_svg(chart, name, title)
