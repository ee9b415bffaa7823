"""A mean with its interval by band, one small multiple per attribute on one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from awqbench.report.charts.svg import palette, rows, to_svg


@dataclass(frozen=True)
class BandPoint:
    """One backend in one band of one attribute."""

    attribute: str
    band: str
    backend: str
    value: float
    low: float | None
    high: float | None


def by_band(points: list[BandPoint], backends: list[str], unit: str, name: str, title: str) -> Markup:
    """Draw attributes side by side on one axis from zero, their bands in the order given."""
    colours, shapes = palette(backends)
    top = max(max(point.value, point.high or 0.0) for point in points)
    axis = alt.Scale(domain=[0, top], nice=True)
    charts: list[Any] = []
    for attribute in dict.fromkeys(point.attribute for point in points):
        own = [point for point in points if point.attribute == attribute]
        order = list(dict.fromkeys(point.band for point in own))
        base = alt.Chart(
            rows([{"band": p.band, "backend": p.backend, "value": p.value, "low": p.low, "high": p.high} for p in own])
        ).encode(
            x=alt.X("band:N", sort=order, title=attribute, axis=alt.Axis(labelAngle=0, labelLimit=90)),
            xOffset=alt.XOffset("backend:N", sort=backends),
            color=alt.Color("backend:N", scale=colours),
        )
        interval = base.mark_rule(strokeWidth=1.5).encode(
            # One axis for all: its title stands once.
            y=alt.Y("low:Q", title=None if charts else unit, scale=axis, axis=alt.Axis(tickCount=5, domain=False)),
            y2="high:Q",
        )
        point = base.mark_point(filled=True, size=60, opacity=1).encode(
            y=alt.Y("value:Q", scale=axis), shape=alt.Shape("backend:N", scale=shapes)
        )
        charts.append(alt.layer(interval, point).properties(width=72 * len(order), height=180))
    return to_svg(alt.hconcat(*charts, spacing=30), name, title)
