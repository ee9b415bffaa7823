"""Newly biased items, worst groups and rates of stereotyped answers, in the report and on a terminal."""

from __future__ import annotations

import pytest

from awqbench.printing import print_comparison
from awqbench.record.reader import Run
from awqbench.record.schema import BiasFlips, Share
from awqbench.report.html import html
from awqbench.report.markdown import markdown
from awqbench.report.sections.bias import label_rates, lost_most, turned

ID = "fairness/synthetic_set/accuracy"
FLIPS = BiasFlips(
    n=240,
    newly_biased=Share(count=24, share=0.1, ci_low=0.065, ci_high=0.145),
    newly_unbiased=Share(count=3, share=0.0125, ci_low=0.0026, ci_high=0.0361),
)
RATES = {
    "selection_rate": {"by_group": {"north": {"value": 0.25, "n": 80}, "islands": {"value": 0.5, "n": 8}}},
    "false_positive_rate": {"by_group": {"north": {"value": 0.125, "n": 40}}},
}


@pytest.fixture
def biased(run: Run) -> Run:
    """The synthetic run with a biased metric in its fairness suite."""
    assert run.comparison is not None
    for difference in run.comparison.differences:
        if difference.metric == ID and difference.candidate == "awq":
            difference.bias_flips = FLIPS
    for group in run.comparison.groups:
        if (group.candidate, group.group) == ("awq", "south"):
            group.bias_flips = FLIPS
    for cell in run.cells:
        for metric in cell.result.metrics:
            if metric.id == ID:
                metric.detail["groups"] = {"origin": {"label_rates": RATES}, "age": {"by_group": {}}}
    return run


def test_sections(biased: Run) -> None:
    assert [d.candidate for d in turned(biased, "fairness") if d.baseline == "reference"] == ["awq"]
    assert turned(biased, "tasks") == []
    assert lost_most(biased, "fairness")[0].group == "south"  # which loses every second answer
    (rates,) = label_rates(biased, "fairness")
    assert (rates.metric, rates.attribute, rates.names) == (ID, "origin", ["selection rate", "false-positive rate"])
    assert rates.rows[0] == ("islands", "reference", [(0.5, 8), None])
    assert [backend for group, backend, _ in rates.rows if group == "north"] == ["reference", "awq", "rtn"]


def test_the_reports_say_it(biased: Run) -> None:
    page = html(biased)
    assert "Newly biased, newly unbiased" in page
    assert "<b>24</b> 10.00" in page
    assert "Which group lost most" in page
    assert "Stereotyped answers by origin" in page
    assert "| awq | fairness/synthetic\\_set/accuracy | 24 (10.00\u00a0%) | 3 (1.25\u00a0%) | 240 |" in markdown(biased)


def test_without_bias_nothing_is_said(run: Run) -> None:
    assert "ewly biased" not in html(run)
    assert "ewly biased" not in markdown(run)
    assert label_rates(run, "fairness") == []


def test_a_terminal_says_it(biased: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert biased.comparison is not None
    print_comparison(biased.comparison)
    said = capsys.readouterr().out
    assert f"{ID}, awq against reference: 24 of 240 items newly biased (10.0%), 3 newly unbiased (1.2%)" in said
    assert f"{ID}, awq: origin = south lost most, +0." in said
