"""Rates as Markdown: a table per study, a row per scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rates import FAMILY, Rate

_OPEN, _CLOSE = "<!-- measured: suites/calibration/simulate.py -->", "<!-- end of what was measured -->"


def markdown(rates: Sequence[Rate]) -> str:
    """Per cent, in bold where a promise is broken, in brackets where a test is more cautious than its level."""
    counts = len(rates)
    broken = [rate for rate in rates if rate.broken(counts)]
    runs = max(rate.runs for rate in rates)
    example = Rate("", "", "", 0, runs, 0.05)
    low, high = (100 * limit / runs for limit in example.limits(counts))
    lines = [
        f"{counts} rates, each of {runs:,} simulated comparisons (half as many where something is drawn or the gate "
        f"judges, a fifth for its power). With {100 * FAMILY:g} % shared out over all of them, a true 5 % of {runs:,} "
        f"is seen between {low:.1f} % and {high:.1f} %. Beyond a limit: {len(broken)}, in **bold**, of which "
        f"{sum(rate.known for rate in broken)} belong to the limits named above. In (brackets): more cautious than the "
        "level. All figures are per cent.",
    ]
    for study in dict.fromkeys(rate.study for rate in rates):
        lines += ["", f"### {study[0].upper()}{study[1:]}", "", *_table([r for r in rates if r.study == study], counts)]
    return "\n".join(lines)


def _table(rates: Sequence[Rate], counts: int) -> list[str]:
    measures = dict.fromkeys(rate.measure for rate in rates)
    cells = {(rate.scenario, rate.measure): _cell(rate, counts) for rate in rates}
    nominal = {rate.measure: rate for rate in rates}
    heads = [f"{m}{_promise(nominal[m])}" for m in measures]
    lines = ["| Scenario | " + " | ".join(heads) + " |", "|---" * (len(measures) + 1) + "|"]
    for scenario in dict.fromkeys(rate.scenario for rate in rates):
        lines.append(f"| {scenario} | " + " | ".join(cells.get((scenario, m), "") for m in measures) + " |")
    return lines


def _promise(rate: Rate) -> str:
    return "" if rate.promise == "about" else f" ({rate.promise} {100 * rate.nominal:g} %)"


def _cell(rate: Rate, counts: int) -> str:
    text = f"{100 * rate.share:.1f}"
    if rate.broken(counts):
        return f"**{text}**"
    cautious = rate.promise == "at most" and rate.hits < rate.limits(counts)[0]
    return f"({text})" if cautious else text


def into(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page. Raises ValueError when the page has no marks."""
    old = page.read_text(encoding="utf-8")
    if _OPEN not in old or _CLOSE not in old:
        raise ValueError(f"{page} has no place for tables: {_OPEN} ... {_CLOSE}")
    before, rest = old.split(_OPEN, 1)
    page.write_text(before + _OPEN + "\n\n" + text + "\n\n" + _CLOSE + rest.split(_CLOSE, 1)[1], encoding="utf-8")
