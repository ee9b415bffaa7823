"""Horizontal bars for single figures per backend, such as a checkpoint's size; and ranked shares."""

from __future__ import annotations

import altair as alt
from markupsafe import Markup

from awqbench.report import format as fmt
from awqbench.report.charts.svg import INK, SERIES, palette, rows, to_svg


def by_backend(
    measures: dict[str, tuple[str, dict[str, float]]], backends: list[str], reference: str | None, name: str, title: str
) -> Markup:
    """Draw measures {label: (unit, {backend: value})}, two per row, each from zero on its own axis."""
    colours, _ = palette(backends, reference)
    charts = []
    for label, (unit, values) in measures.items():
        data = rows([{"backend": b, "value": v, "text": fmt.value(v, unit)} for b, v in values.items()])
        base = alt.Chart(data, title=label).encode(
            x=alt.X("value:Q", axis=None, scale=alt.Scale(zero=True)),
            y=alt.Y("backend:N", sort=backends, title=None, axis=alt.Axis(domain=False, ticks=False)),
        )
        bars = base.mark_bar(height=14, cornerRadiusEnd=2).encode(
            color=alt.Color("backend:N", scale=colours, legend=None)
        )
        text = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text="text:N")
        charts.append(alt.layer(bars, text).properties(width=300, height=alt.Step(24)))
    return to_svg(
        alt.concat(*charts, columns=2, spacing={"row": 24, "column": 90}).resolve_scale(
            x="independent", y="independent"
        ),
        name,
        title,
    )


def ranked(shares: dict[str, float], name: str, title: str) -> Markup:
    """Draw {label: share} as bars in the order given."""
    data = rows([{"label": k, "value": v, "text": fmt.value(v, "share")} for k, v in shares.items()])
    base = alt.Chart(data).encode(
        x=alt.X("value:Q", axis=None),
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)),
    )
    bars = base.mark_bar(height=14, cornerRadiusEnd=2, color=SERIES[0])
    text = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text="text:N")
    return to_svg(alt.layer(bars, text).properties(width=480, height=alt.Step(22)), name, title)
