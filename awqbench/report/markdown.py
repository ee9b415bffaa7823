"""report.md: the verdict and what decides it, short enough for a comment on a pull request."""

from __future__ import annotations

import re

from awqbench.record.reader import Run
from awqbench.report.sections.bias import turned
from awqbench.report.sections.coverage import coverage
from awqbench.report.sections.fairness import attributes, worst
from awqbench.report.sections.verdict import cards, glance
from awqbench.report.select import model_label, rules_of, unique
from awqbench.report.template import environment

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~>])")


def cell(text: object) -> str:
    """Text made harmless inside Markdown and its tables: no markup, no line breaks, no mentions."""
    flat = " ".join(str(text).split())
    escaped = _SPECIAL.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;"))
    return escaped.replace("@", "@\u200b")


def indented(lines: list[str]) -> str:
    """Lines as an indented code block, where neither Markdown nor a mention means anything."""
    return "\n".join(f"    {line}" for line in lines)


def markdown(run: Run) -> str:
    """The comment: verdict lines, rules, headline differences, worst groups, where the full report lies."""
    made = environment(escape=False)
    made.filters["cell"] = cell
    made.filters["indented"] = indented
    backends, headline = glance(run)
    names = unique(c.result.suite for c in run.cells)
    return made.get_template("report.md.j2").render(
        model=model_label(run),
        verdict=run.verdict,
        cards=cards(run),
        rules=rules_of(run),
        parity=run.comparison.parity if run.comparison else [],
        failed=coverage(run).failed,
        backends=backends,
        glance=headline,
        worst=[pair for name in names for pair in worst(attributes(run, name))],
        turned=[d for name in names for d in turned(run, name) if d.role == "candidate"],
    )
