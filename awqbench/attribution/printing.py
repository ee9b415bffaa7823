"""An attribution as text."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqbench.attribution.cost import BACKWARD, step_counts
from awqbench.record.attribution import Attribution, Entry
from awqbench.report import format as fmt
from awqbench.report.attribution_words import amount, described, keep_line, recovered

MOST = 15


def plan_line(half: str, points: int, top: int) -> str:
    """What will be computed, before it is; `half` says what each of the two halves holds."""
    passes = 2 + top + len(step_counts(top))
    return (
        f"estimate: {half}, {1 + BACKWARD * points} forward passes' worth ({points} gradients);"
        f" confirm: as many others, up to {passes} passes"
    )


def print_attribution(found: Attribution) -> None:
    """The damage, who did it, and what putting it back is worth."""
    console = Console(highlight=False)
    console.width = max(console.width, 110)  # a folded table of long names cannot be read
    unit = str(found.measure["unit"])
    measure = described(found)
    for name, stage in (("estimating", found.estimating), ("held out", found.confirming)):
        units = f"{stage.units} units in {stage.clusters} clusters"
        if stage.group_units is not None:
            units += f", {stage.group_units} of the group"
        console.print(Text(f"{measure}, {name}: {amount(stage.damage)} {unit} ({units})"), soft_wrap=True)
    summed = "" if found.explained is None else f"the estimates sum to {found.explained:.1%} of it; "
    left = f"with everything put back {fmt.significant(found.remainder.value, 2)} is left"
    console.print(Text(summed + left), soft_wrap=True)
    rows = {"linear": found.linears, "block": found.blocks, "kind": found.kinds}[found.by]
    console.print(_table(found.by, rows, unit))
    if len(rows) > MOST:
        console.print(Text(f"... and {len(rows) - MOST} more (--json, or --out FILE)"))
    console.print(_steps(found))
    for key, value in found.agreement.items():
        if value is not None and key.startswith("estimate"):
            console.print(Text(f"rank correlation of estimates and measurements: {value:.2f}"))
    for note in found.notes:
        console.print(f"note: {note}", markup=False, style="yellow", soft_wrap=True)
    if line := keep_line(found):
        console.print(Text(f"to keep what is shown to help: {line}"), soft_wrap=True)


def _table(by: str, rows: list[Entry], unit: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(by, no_wrap=True)
    for title in ("bits", "of bytes", "estimate", "recovered when put back", "cost at 16 bits"):
        table.add_column(title, justify="right")
    for row in rows[:MOST]:
        table.add_row(
            row.name,
            str(row.bits or fmt.DASH),
            f"{row.weight_share:.1%}",
            f"{fmt.significant(row.estimate.value, 3)} {unit}" if row.share is None else f"{row.share:.1%}",
            fmt.DASH if row.measured is None else recovered(row.measured),
            fmt.size(row.added_bytes),
        )
    return table


def _steps(found: Attribution) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"{found.by}s put back together")
    for title in ("recovered", "cost at 16 bits"):
        table.add_column(title, justify="right")
    for step in found.steps:
        table.add_row(f"the first {len(step.names)}", recovered(step.measured), fmt.size(step.added_bytes))
    return table
