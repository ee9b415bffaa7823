"""Bands of the divergence in the report."""

from __future__ import annotations

from awqbench.record.reader import Run
from awqbench.report.sections.bands import band_chart, bands
from awqbench.report.sections.suites import suites


def test_bands_stand_in_their_own_order_beside_their_contrast(run: Run) -> None:
    view = next(view for view in suites(run) if view.kind == "divergence")
    prefill, decode = bands(run, view)
    assert (prefill.path, prefill.attribute, decode.path) == (
        "synthetic-text@512/prefill", "frequency", "synthetic-text@64/decode",
    )  # fmt: skip
    assert prefill.definition == "of the token's type in the text"
    assert [(row.band, row.backend) for row in prefill.rows] == [
        (band, backend) for band in ("frequent", "medium", "rare") for backend in ("awq", "rtn")
    ]
    rare = next(row for row in prefill.rows if (row.band, row.backend) == ("rare", "awq"))
    assert rare.extra is not None
    # 0.24 against the mean of 0.08 and 0.12, with four windows: shown, never judged.
    assert rare.extra.did is not None
    assert abs(rare.extra.did - 0.14) < 0.01
    assert (rare.extra.n, rare.extra.too_few) == (4, True)


def test_means_over_bands_are_no_rows_of_the_differences(run: Run) -> None:
    view = next(view for view in suites(run) if view.kind == "divergence")
    assert run.comparison is not None
    assert any(row.by_band for row in run.comparison.differences)
    assert not any(row.by_band for row in [*view.differences, *view.head_to_head])


def test_the_chart_draws_every_band(run: Run) -> None:
    view = next(view for view in suites(run) if view.kind == "divergence")
    drawn = str(band_chart(run, view, bands(run, view)))
    assert all(name in drawn for name in ("frequent", "medium", "rare", "frequency"))
    assert band_chart(run, view, []) is None


def test_in_the_page(rendered: dict[str, str]) -> None:
    page = rendered["report.html"]
    assert "Where it lies" in page
    assert "synthetic-text@512/prefill: by frequency in numbers" in page
    assert "4 windows: not judged" in page
    section = page.split('id="suite-divergence"')[1].split("<section")[0]
    assert "Each point is a difference-in-differences" not in section  # the bands' own tables say it
    # ln(ratio) 0.12 of the rare band is 12.7 % more perplexity.
    assert "+12.7\u00a0%" in page
