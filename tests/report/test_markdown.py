"""report.md: short, and safe to paste into a comment."""

from __future__ import annotations

from itertools import pairwise

from awqbench.record.reader import Run
from awqbench.report.html import html
from awqbench.report.markdown import cell, markdown


def test_verdict_rules_and_differences(rendered: dict[str, str]) -> None:
    text = rendered["report.md"].replace("\u00a0", " ")
    assert text.startswith("## awqbench: synthetic-135M\n")
    assert "❌ **awq may NOT ship**: perplexity/" in text
    assert "| ❔ inconclusive | awq | tasks/synthetic\\_task/acc |" in text
    assert "**origin = south** −30.0 points" in text
    assert "report.html" in text
    assert len(text) < 5000


def test_tables_are_tables(rendered: dict[str, str]) -> None:
    lines = rendered["report.md"].splitlines()
    for before, line in pairwise(lines):
        if line.startswith("|") and before.startswith("|"):
            assert line.count("|") == before.count("|")
        elif line.startswith("|"):
            assert before == ""  # a table needs an empty line before it
    assert sum(line.startswith("|---") for line in lines) == 2


def test_markup_in_names_stays_text(run: Run) -> None:
    assert cell("a|b\n@team <img> [x](y)") == "a\\|b @\u200bteam &lt;img\\> \\[x\\]\\(y\\)"
    run.manifest.model["label"] = "<img src=x> | @everyone"
    assert "<img" not in markdown(run)
    assert "@everyone" not in markdown(run)


def test_a_plan_from_few_clusters_is_said_to_be_a_lower_bound(run: Run) -> None:
    assert run.verdict
    (rule,) = [r for r in run.verdict.rules if r.n_needed is not None and r.group is None]
    assert not rule.n_needed_at_least
    for bound, said in ((False, f" of {rule.n_needed:,}"), (True, f" of at least {rule.n_needed:,}")):
        rule.n_needed_at_least = bound
        assert f"| {rule.n:,}{said} |" in markdown(run).replace("\u00a0", " ")
        assert f">{said.strip()} needed<" in html(run)
