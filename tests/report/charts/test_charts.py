"""Each chart is a valid Vega-Lite specification, which Altair checks as it is made, and one accessible SVG element."""

from __future__ import annotations

from xml.etree import ElementTree

import altair as alt
import pytest
from markupsafe import Markup

from awqbench.report.charts.bars import by_backend, ranked
from awqbench.report.charts.batch import BatchPoint, by_batch
from awqbench.report.charts.forest import ForestRow, forest, panels
from awqbench.report.charts.quantiles import tail
from awqbench.report.charts.series import small_multiples
from awqbench.report.charts.svg import MUTED, palette, rows, to_svg
from awqbench.report.charts.units import axis_unit


def _root(svg: Markup) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    title = root[0]
    assert title.tag.endswith("title")
    assert title.attrib["id"] == root.attrib["aria-labelledby"]
    assert title.text
    return root


def _texts(svg: Markup) -> list[str]:
    return [element.text or "" for element in _root(svg).iter("{http://www.w3.org/2000/svg}text")]


def _row(label: str, delta: float | None, unit: str = "share", **more: object) -> ForestRow:
    return ForestRow(label, "awq", unit, delta, higher_is_better=True, **more)  # type: ignore[arg-type]


def test_forest_shows_figure_limit_and_noise_floor() -> None:
    plain = forest([_row("a", -0.02, low=-0.03, high=0.01)], ["awq", "rtn"], "x", "t")
    full = forest([_row("a", -0.02, low=-0.03, high=0.01, limit=-0.01, noise=0.002)], ["awq", "rtn"], "x", "t")
    assert any("−2.00\u00a0points" in text for text in _texts(full))
    assert any("worse" in text and "better" in text for text in _texts(full))
    assert "var(--fail)" in full
    assert "var(--fail)" not in plain
    assert full.count("var(--floor)") > plain.count("var(--floor)")


def test_forest_row_without_figure_has_its_note() -> None:
    svg = forest([_row("a", 0.1), _row("few", None, note="too few items")], ["awq"], "x", "t")
    assert any("too few items" in text for text in _texts(svg))


def test_panels_part_units_directions_and_scales() -> None:
    together = panels([_row("a", 0.1), _row("b", 0.2)])
    assert [len(panel) for panel in together] == [2]
    assert len(panels([_row("a", 0.1), _row("b", 0.1, unit="relative")])) == 2
    assert len(panels([_row("a", 0.001), _row("b", 0.2)])) == 2  # beside the other, the first would vanish
    assert len(panels([_row("a", 0.0), _row("b", 0.0)])) == 1
    assert panels([]) == []


def test_ids_do_not_collide_within_a_page() -> None:
    chart = alt.Chart(rows([{"x": 1}])).mark_point(clip=True).encode(x="x:Q")
    first, second = (_root(to_svg(chart, name, "t")) for name in ("one", "two"))
    ids = [{e.attrib["id"] for e in root.iter() if "id" in e.attrib} for root in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = [v for e in first.iter() for v in e.attrib.values() if "url(#" in v]
    assert used
    assert all("url(#one-" in v for v in used)


def test_text_from_outside_stays_text() -> None:
    svg = ranked({"<script>alert(1)</script>": 0.5}, "x", "</title><script>")
    assert "<script" not in svg
    assert "<script>alert(1)</script>" in _texts(svg)


def test_no_two_series_look_alike() -> None:
    """The preset of all engines has seven: its control was drawn as its first candidate."""
    names = [f"engine {i}" for i in range(12)]
    colours, shapes = palette(names)
    assert len(set(zip(colours["range"], shapes["range"], strict=True))) == len(names)


def test_a_candidate_keeps_its_colour_beside_the_reference() -> None:
    alone, _ = palette(["awq", "rtn"])
    beside, shapes = palette(["reference", "awq", "rtn"], "reference")
    assert beside.to_dict()["range"] == [MUTED, *alone.to_dict()["range"]]
    assert len(set(shapes.to_dict()["range"])) == 3


def test_speed_and_single_figures() -> None:
    points = [
        BatchPoint("ttft@prompt=8", "s", backend, batch, 0.1 * batch, 0.09 * batch, None, False)
        for backend in ("reference", "awq")
        for batch in (1, 4)
    ]
    texts = _texts(by_batch(points, ["reference", "awq", "rtn"], "reference", "x", "t"))
    assert {"ttft", "ms", "awq"} <= set(texts)
    assert "rtn" not in texts  # not measured: no entry in the legend
    bars = by_backend({"size": ("bytes", {"reference": 2.0**20, "awq": 2.0**19})}, ["reference", "awq"], None, "x", "t")
    assert "512.0\u00a0KiB" in _texts(bars)


def test_small_multiples_say_which_cell_was_not_sampled() -> None:
    points = [
        {"backend": b, "suite": s, "time": t, "value": 1.0}
        for b, s in (("reference", "tasks"), ("awq", "tasks"), ("awq", "divergence"))
        for t in (0, 1)
    ]
    texts = _texts(small_multiples(points, ["reference", "awq"], ["divergence", "tasks"], "x", "t"))
    assert texts.count("not sampled") == 1


def test_tail_leaves_out_what_a_logarithmic_axis_cannot_show() -> None:
    values = [("p", "awq", "p50", 0.0), ("p", "awq", "p99", 0.5)]
    assert "p99" in _texts(tail(values, ["p50", "p99"], ["awq"], "nats", "x", "t"))


@pytest.mark.parametrize(
    ("unit", "largest", "expected"),
    [("relative", 1, (100, "%")), ("s", 0.2, (1000, "ms")), ("s", 3, (1, "s")), ("bytes", 2**31, (2**-30, "GiB"))],
)
def test_axis_units(unit: str, largest: float, expected: tuple[float, str]) -> None:
    assert axis_unit(unit, largest) == expected


def test_metrics_of_a_text_with_a_long_name_can_be_told_apart() -> None:
    """They differ in their ends, which were cut off."""
    text = "conversations-of-our-customers-1a2b3c4d@2048+16of400/prefill"
    labels = [f"{text}/{what}" for what in ("kl", "kl-reverse", "top1-disagreement")]
    drawn = _texts(forest([_row(label, 0.1, low=0.0, high=0.2) for label in labels], ["awq"], "x", "t"))
    assert [label for label in labels if label not in drawn] == []


def test_a_name_that_svg_cannot_hold_does_not_end_the_process() -> None:
    drawn = forest([ForestRow("a\x0bgroup\x00", "awq", "share", 0.1, 0.0, 0.2)], ["awq"], "c", "Groups: a\x1b")
    assert "a\ufffdgroup\ufffd" in drawn
    assert ElementTree.fromstring(str(drawn))[0].text == "Groups: a\ufffd"
