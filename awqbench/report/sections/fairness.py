"""Did compression cost some groups more than the others? Worst group first."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from awqbench.record.reader import Run
from awqbench.record.schema import GroupDifference
from awqbench.report import format as fmt
from awqbench.report import select
from awqbench.report.charts.forest import ForestRow, forest
from awqbench.report.sections.suites import series


@dataclass(frozen=True)
class AttributeView:
    """All groups of one attribute on one metric: levels in `unit`, changes and their differences in `delta_unit`."""

    suite: str
    metric: str
    attribute: str
    unit: str
    delta_unit: str
    higher_is_better: bool | None
    groups: list[GroupDifference]


def harm(group: GroupDifference, higher_is_better: bool | None) -> float:
    """How much more this group lost than the rest; for a metric without a better side, how far it moved."""
    if group.did is None:
        return float("-inf")
    return abs(group.did) if higher_is_better is None else -group.did if higher_is_better else group.did


def attributes(run: Run, suite: str) -> list[AttributeView]:
    """Views by metric and attribute; within each the judged groups first, the most harmed at the top."""
    if run.comparison is None:
        return []
    found = [
        g
        for g in run.comparison.groups
        if g.suite == suite and g.role != "noise" and g.baseline == run.comparison.reference
    ]
    views = []
    for metric, attribute in dict.fromkeys((g.metric, g.attribute) for g in found):
        record = select.find_metric(run, suite, metric)
        better = record.higher_is_better if record else None
        own = [g for g in found if (g.metric, g.attribute) == (metric, attribute)]
        own.sort(key=lambda g: (g.role != "candidate", g.too_few, -harm(g, better)))
        unit = record.unit if record else ""
        changes = "relative" if record and record.pairing == "log-ratio" else unit
        views.append(AttributeView(suite, metric, attribute, unit, changes, better, own))
    return views


def worst(views: list[AttributeView]) -> list[tuple[AttributeView, GroupDifference]]:
    """The most harmed judged group of each candidate on each metric, over all attributes."""
    best: dict[tuple[str, str], tuple[AttributeView, GroupDifference]] = {}
    for view in views:
        for group in view.groups:
            key = (view.metric, group.candidate)
            if group.too_few or group.did is None or group.role != "candidate":
                continue
            amount = harm(group, view.higher_is_better)
            if key not in best or amount > harm(best[key][1], best[key][0].higher_is_better):
                best[key] = (view, group)
    return list(best.values())


def charts(run: Run, views: list[AttributeView]) -> list[Markup | None]:
    """A forest plot of each view's groups; None where no group has enough items to be judged."""
    return [_chart(run, view, f"{view.suite}-groups-{i}") for i, view in enumerate(views)]


def _chart(run: Run, view: AttributeView, name: str) -> Markup | None:
    limits = {
        (rule.candidate, rule.group): rule.margin
        for rule in (run.verdict.rules if run.verdict else [])
        if (rule.suite, rule.metric, rule.attribute) == (view.suite, view.metric, view.attribute)
        and (rule.unit == "relative") == (view.delta_unit == "relative")
    }
    sign = -1 if view.higher_is_better else 1
    rows = []
    for g in view.groups:
        if g.did is None:
            continue
        margin = None if g.too_few else limits.get((g.candidate, g.group))
        rows.append(
            ForestRow(
                label=f"{g.group} (n = {fmt.count(g.n)})",
                series=g.candidate,
                unit=view.delta_unit,
                delta=None if g.too_few else g.did,
                low=None if g.too_few else g.ci_low,
                high=None if g.too_few else g.ci_high,
                limit=None if margin is None else sign * margin,
                higher_is_better=view.higher_is_better,
                note=f"{fmt.delta(g.did, view.delta_unit)}, too few items to judge" if g.too_few else None,
            )
        )
    if not any(row.delta is not None for row in rows):
        return None
    title = f"Difference-in-differences of {view.metric} by {view.attribute}, against the attribute's other groups"
    return forest(rows, series(run), name, title)
