"""An Altair chart as an SVG element that follows the page's light or dark colours and reads well to a screen reader."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

from awqbench.report.format import legal

_SVG = "http://www.w3.org/2000/svg"
_VEGALITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
# Fonts with the widths that vl-convert lays text out with, so that labels fit on every machine.
FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"

# CSS variables of reports/report.css: inside the page they resolve, so one drawing serves light, dark and print.
INK, MUTED, LINE, FLOOR, LIMIT = "var(--ink)", "var(--muted)", "var(--line)", "var(--floor)", "var(--fail)"
SERIES = [f"var(--series-{i})" for i in range(1, 7)]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]  # "stroke", a dash, is neutral

Chart = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.ConcatChart | alt.FacetChart


def rows(values: list[dict[str, Any]]) -> alt.InlineData:
    """Plain rows as inline chart data."""
    return alt.InlineData(values=values)


def palette(names: list[str], neutral: str | None = None) -> tuple[alt.Scale, alt.Scale]:
    """Colour and shape scales for the same series, so that colour never carries the information alone.

    `neutral` (the reference) is grey and uses up no colour: the others look the same in charts with and without it.
    """
    others = [name for name in names if name != neutral]
    colours = {name: SERIES[i % len(SERIES)] for i, name in enumerate(others)}
    # A seventh has the first's colour and must not have its shape as well.
    shapes = {name: SHAPES[(i + i // len(SERIES)) % len(SHAPES)] for i, name in enumerate(others)}
    return (
        alt.Scale(domain=names, range=[colours.get(name, MUTED) for name in names]),
        alt.Scale(domain=names, range=[shapes.get(name, "stroke") for name in names]),
    )


def to_svg(chart: Chart, name: str, title: str) -> Markup:
    """Draw a chart. `name` must be unique within the page (it prefixes ids); `title` says what the chart shows."""
    styled = chart.properties(
        background="transparent", padding={"left": 2, "right": 8, "top": 4, "bottom": 4}
    ).configure(
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelColor=MUTED,
            titleColor=MUTED,
            titleFontWeight="normal",
            labelFontSize=12,
            titleFontSize=12,
            gridColor=LINE,
            domainColor=LINE,
            tickColor=LINE,
            labelLimit=640,  # metrics of one text differ in their ends alone
        ),
        header=alt.HeaderConfig(labelColor=INK, titleColor=MUTED, labelFontSize=12),
        legend=alt.LegendConfig(
            labelColor=INK, titleColor=MUTED, labelFontSize=12, orient="top", title=None, symbolSize=70
        ),
        title=alt.TitleConfig(color=INK, fontSize=13, fontWeight="bold", anchor="start", subtitleColor=MUTED),
        text=alt.MarkConfig(color=MUTED),
    )
    # vl-convert ends the whole process at a character that SVG cannot hold: a group may be named with one.
    described = json.dumps(_legal(styled.to_dict(validate=False)))
    drawn = vl_convert.vegalite_to_svg(described, vl_version=_VEGALITE)
    return Markup(_accessible(drawn, name, legal(title)))


def _legal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _legal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_legal(inner) for inner in value]
    return legal(value) if isinstance(value, str) else value


def _accessible(drawn: str, name: str, title: str) -> str:
    """One image with one title: ids made unique, per-mark roles dropped, width left to the page."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(drawn)
    # Vega numbers its ids over the life of the process; numbered anew, the same chart is the same text.
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    renamed = {old: f"{name}-{i}" for i, old in enumerate(ids)}
    for element in root.iter():
        for key, text in list(element.attrib.items()):
            if key.startswith("aria-") or key == "role":
                del element.attrib[key]
            elif key == "id":
                element.set(key, renamed[text])
            elif "url(#" in text:
                element.set(key, re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{renamed[found[1]]})", text))
    width = root.attrib.pop("width")
    root.attrib.pop("height", None)
    root.attrib.pop("version", None)
    # Where none of the fonts is installed, labels are wider than laid out: they may stand out, never be cut off.
    root.set("style", f"width:{width}px;overflow:visible")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    label = ElementTree.Element(f"{{{_SVG}}}title", {"id": f"{name}-title"})
    label.text = title
    root.insert(0, label)
    return re.sub(r"<\?xml[^>]*\?>\s*", "", ElementTree.tostring(root, encoding="unicode"))
