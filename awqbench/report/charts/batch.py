"""Speed by batch size, one small multiple per measure."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
from markupsafe import Markup

from awqbench.report.charts.svg import palette, rows, to_svg
from awqbench.report.charts.units import axis_unit


@dataclass(frozen=True)
class BatchPoint:
    """One backend at one batch size; amounts in `unit`."""

    measure: str
    unit: str
    backend: str
    batch: int
    value: float
    low: float | None
    high: float | None
    higher_is_better: bool | None


def by_batch(points: list[BatchPoint], backends: list[str], reference: str | None, name: str, title: str) -> Markup:
    """Draw measures side by side, each on its own axis from zero."""
    colours, shapes = palette(backends, reference)
    legend = alt.Legend(values=[name for name in backends if any(point.backend == name for point in points)])
    charts = []
    for measure in dict.fromkeys(point.measure for point in points):
        chosen = [point for point in points if point.measure == measure]
        factor, unit = axis_unit(chosen[0].unit, max(point.value for point in chosen))
        better = {True: "higher is better", False: "lower is better", None: ""}[chosen[0].higher_is_better]
        what, _, protocol = measure.partition("@")
        base = alt.Chart(
            rows(
                [
                    {
                        "backend": p.backend,
                        "batch": str(p.batch),
                        "value": p.value * factor,
                        "low": None if p.low is None else p.low * factor,
                        "high": None if p.high is None else p.high * factor,
                    }
                    for p in chosen
                ]
            ),
            title=alt.TitleParams(what, subtitle=[better, protocol]),
        ).encode(
            x=alt.X(
                "batch:O",
                title="batch size",
                sort=_sizes(chosen),
                axis=alt.Axis(labelAngle=0),
                scale=alt.Scale(padding=0.6),
            ),
            color=alt.Color("backend:N", scale=colours, legend=legend),
        )
        y = alt.Y("value:Q", title=unit, axis=alt.Axis(tickCount=4, domain=False), scale=alt.Scale(zero=True, nice=4))
        whiskers = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        charts.append(
            alt.layer(
                whiskers.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q"),
                base.mark_line(strokeWidth=1.5, opacity=0.7).encode(y=y),
                base.mark_point(filled=True, size=70, opacity=1).encode(
                    y=y, shape=alt.Shape("backend:N", scale=shapes, legend=legend)
                ),
            ).properties(width=270, height=170)
        )
    return to_svg(
        alt.concat(*charts, columns=3, bounds="flush", spacing={"row": 90, "column": 75}).resolve_scale(
            y="independent"
        ),
        name,
        title,
    )


def _sizes(points: list[BatchPoint]) -> list[str]:
    return [str(batch) for batch in sorted({point.batch for point in points})]
