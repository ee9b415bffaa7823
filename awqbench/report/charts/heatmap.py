"""Shares of a whole by two categories, as a field of rectangles: where in a model does it lie?"""

from __future__ import annotations

import altair as alt
from markupsafe import Markup

from awqbench.report.charts.svg import LINE, SERIES, rows, to_svg

_STEP, _WIDE_STEP = 22, 72
_WIDEST = 720


def heatmap(shares: dict[tuple[int, str], float], x: str, name: str, title: str) -> Markup:
    """Draw {(column, row): share}: the stronger, the larger; negative ones in another colour."""
    columns, kinds = sorted({column for column, _ in shares}), list(dict.fromkeys(row for _, row in shares))
    largest = max((abs(share) for share in shares.values()), default=0.0) or 1.0
    data = rows(
        [
            {"x": column, "y": row, "strength": abs(share) / largest, "sign": "less" if share < 0 else "more"}
            for (column, row), share in shares.items()
        ]
    )
    chart = alt.Chart(data).mark_rect(stroke=LINE, strokeWidth=1)
    step = min(_WIDE_STEP, _WIDEST // max(1, len(columns)))
    every = max(1, round(26 / step))
    shown = alt.Axis(values=columns[::every], labelAngle=0, domain=False, ticks=False)
    drawn = chart.encode(
        x=alt.X("x:O", sort=columns, title=x, axis=shown),
        y=alt.Y("y:N", sort=kinds, title=None, axis=alt.Axis(domain=False, ticks=False)),
        color=alt.Color("sign:N", scale=alt.Scale(domain=["more", "less"], range=SERIES[:2]), legend=None),
        opacity=alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0.02, 1]), legend=None),
    ).properties(width=alt.Step(step), height=alt.Step(_STEP))
    return to_svg(drawn, name, title)
