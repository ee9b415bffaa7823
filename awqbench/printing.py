"""Results on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqbench.record.reader import Run
from awqbench.record.schema import Comparison, Verdict, VerdictName

_STYLE = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
_ANSWER: dict[VerdictName, str] = {"pass": "may ship", "fail": "may NOT ship", "inconclusive": "is undecided"}


def print_run(run: Run) -> None:
    """The verdict, failed cells, and where the report lies."""
    console = Console()
    if run.verdict:
        print_verdict(run.verdict)
    elif run.comparison:
        print_comparison(run.comparison)
    for cell in run.cells:
        if cell.result.status != "ok":
            reason = f"{cell.result.status} {cell.result.backend}/{cell.result.suite}: {cell.result.reason}"
            console.print(reason, markup=False, style="yellow")
    console.print(f"report: {run.path / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def print_verdict(verdict: Verdict) -> None:
    """One line per candidate and per rule."""
    console = Console()
    for line in verdict.invalid:
        console.print(f"invalid: {line}", style="bold red", markup=False)
    for candidate, answer in verdict.candidates.items():
        console.print(Text(f"{candidate} {_ANSWER[answer]}", style=_STYLE[answer]))
    unjudged = [rule for rule in verdict.rules if rule.verdict == "inconclusive" and rule.upper is None]
    for rule in verdict.rules:
        if rule not in unjudged:
            mark = (f"{rule.verdict:<12}", _STYLE[rule.verdict])
            console.print(Text.assemble("  ", mark, f" {rule.candidate}: {rule.reason}"), soft_wrap=True)
    if unjudged:
        console.print(f"  not judged    {len(unjudged)} rules with too few items (see the report)", style="dim")


def print_comparison(comparison: Comparison) -> None:
    """The paired differences as a table."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "baseline", "candidate", "value", "change", "95 % interval", "p", "n", "MDE", "noise"):
        table.add_column(name, justify="left" if name in {"metric", "baseline", "candidate"} else "right")
    for row in comparison.differences:
        scale, unit = (100.0, " %") if row.delta_unit == "relative" else (1.0, "")

        def show(value: float | None, scale: float = scale, unit: str = unit) -> str:
            return "" if value is None else f"{value * scale:+.3g}{unit}"

        interval = f"{show(row.ci_low)} .. {show(row.ci_high)}" if row.ci_low is not None else ""
        table.add_row(
            Text(row.metric), row.baseline, row.candidate,
            "" if row.candidate_value is None else f"{row.candidate_value:.4g}",
            show(row.delta), interval, "" if row.p is None else f"{row.p:.2g}", str(row.n), show(row.mde),
            show(row.noise),
        )  # fmt: skip
    console.print(table)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def print_checkpoint(found: dict[str, Any]) -> None:
    """A checkpoint's facts, nested tables indented."""
    console = Console()
    for key, value in found.items():
        if isinstance(value, dict):
            console.print(f"{key}:", markup=False, highlight=False)
            for inner, content in value.items():
                console.print(f"  {inner}: {content}", markup=False, highlight=False)
        elif isinstance(value, list) and len(value) > 8:
            console.print(f"{key}: {len(value)} entries (all with --json)", markup=False, highlight=False)
        else:
            console.print(f"{key}: {value}", markup=False, highlight=False)
