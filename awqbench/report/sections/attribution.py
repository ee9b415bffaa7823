"""Which weights a checkpoint's damage comes from, and what keeping them in 16 bits would buy."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from awqbench.record.attribution import Attribution, Entry, Step
from awqbench.record.reader import Run
from awqbench.report.attribution_words import amount, described, keep_line, recovered
from awqbench.report.charts.heatmap import heatmap


@dataclass(frozen=True)
class EntryView:
    """A row: an entry, and its figures in words."""

    entry: Entry
    estimate: str
    recovered: str | None


@dataclass(frozen=True)
class StepView:
    """Several put back together."""

    step: Step
    recovered: str


@dataclass(frozen=True)
class AttributionView:
    """One attribution of the run. `rows` are the largest estimates of what was put back, `total` how many there are."""

    name: str
    found: Attribution
    title: str
    damage: dict[str, str]
    chart: Markup | None
    rows: list[EntryView]
    total: int
    steps: list[StepView]
    keep: str


def attributions(run: Run, most: int = 20) -> list[AttributionView]:
    """Views of the run's attributions, with `most` rows each."""
    return [_view(name, found, most) for name, found in run.attributions.items()]


def _view(name: str, found: Attribution, most: int) -> AttributionView:
    unit = found.measure["unit"]
    entries = {"linear": found.linears, "block": found.blocks, "kind": found.kinds}[found.by]
    return AttributionView(
        name=name,
        found=found,
        title=described(found),
        damage={
            half: f"{amount(stage.damage)} {unit}; {stage.units} units"
            for half, stage in (("estimated on", found.estimating), ("measured on", found.confirming))
        },
        chart=_chart(name, found),
        rows=[
            EntryView(entry, amount(entry.estimate), recovered(entry.measured) if entry.measured else None)
            for entry in entries[:most]
        ],
        total=len(entries),
        steps=[StepView(step, recovered(step.measured)) for step in found.steps],
        keep=keep_line(found),
    )


def _chart(name: str, found: Attribution) -> Markup | None:
    placed = [row for row in found.linears if row.block is not None and row.kind is not None]
    if not placed:
        return None
    shares: dict[tuple[int, str], float] = {}
    for row in sorted(placed, key=lambda row: (row.block or 0, row.kind or "")):
        key = (row.block or 0, row.kind or "")
        shares[key] = shares.get(key, 0.0) + row.estimate.value
    return heatmap(shares, "block", f"attribution-{name}", f"Estimated share of the damage by block and linear: {name}")
