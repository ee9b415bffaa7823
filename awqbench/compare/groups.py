"""Did the change hit one group more than the others? Difference-in-differences for every group column."""

from __future__ import annotations

from awqbench.compare.bias import bias_flips
from awqbench.compare.cell import Cell
from awqbench.compare.effect import is_binary, mean_value, relative_change
from awqbench.compare.noise import Reruns
from awqbench.compare.pairs import Pairs, group_items, pair_items
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import GROUP_PREFIX, GroupDifference, Metric
from awqbench.stats.bounds import two_sided_p
from awqbench.stats.clustered import MeanBounds
from awqbench.stats.did import contrast_bounds
from awqbench.stats.inputs import Bools, Floats, cluster_codes
from awqbench.stats.power import mde

_TAIL = 0.025
SLICED = ("difference", "log-ratio", "to-reference")


def sliced_pairs(baseline: Cell, candidate: Cell, metric: Metric) -> Pairs | None:
    """The items of a metric that can be divided into groups; None for metrics without items or group columns."""
    if metric.pairing not in SLICED or not any(str(name).startswith(GROUP_PREFIX) for name in candidate.items):
        return None
    distance = metric.pairing == "to-reference" and baseline.result.role == "reference"
    try:
        return pair_items(baseline, candidate, metric.id, distance=distance)
    except InvalidMeasurement:
        return None  # the metric's own row has the reason


def group_differences(
    baseline: Cell, candidate: Cell, metric: Metric, pairs: Pairs, min_group: int, reruns: Reruns | None = None
) -> list[GroupDifference]:
    """A row per attribute and group of one metric, of its `sliced_pairs`.

    Deltas of log-ratio metrics are relative, and their difference is that of a ratio of ratios from 1.
    """
    rows = []
    for attribute in pairs.attributes():
        names = pairs.groups(attribute)
        for group in sorted(names.dropna().unique()):
            row = _row(baseline, candidate, metric, pairs, attribute, str(group), min_group)
            rows.append(_with_noise(row, baseline, metric, pairs, reruns) if reruns else row)
    return rows


def group_bounds(pairs: Pairs, attribute: str, group: str, *, binary: bool, sign: float = 1.0) -> MeanBounds:
    """Bounds of sign * (mean change in the group - mean change in the attribute's other groups).

    Raises InvalidMeasurement when the group or the rest has fewer than two items or clusters.
    """
    applies, member, change = group_masks(pairs, attribute, group)
    clusters = [name for name, there in zip(pairs.clusters, applies, strict=True) if there]
    codes = cluster_codes(clusters, len(clusters))
    return contrast_bounds(sign * change[applies], member[applies], codes, binary=binary)


def group_masks(pairs: Pairs, attribute: str, group: str) -> tuple[Bools, Bools, Floats]:
    """Items the attribute applies to, items of the group, and every item's change."""
    return *group_items(pairs, attribute, group), pairs.change()


def _with_noise(row: GroupDifference, baseline: Cell, metric: Metric, pairs: Pairs, reruns: Reruns) -> GroupDifference:
    floor = reruns.group_floor(baseline, metric, pairs, row.suite, row.attribute, row.group)
    if floor is None:
        return row
    applies, member, change = group_masks(pairs, row.attribute, row.group)
    did = float(change[member].mean() - change[applies & ~member].mean())
    show = relative_change if metric.pairing == "log-ratio" else float
    update = {"noise": show(floor.delta), "noise_reach": show(floor.reach), "within_noise": floor.holds(did)}
    return row.model_copy(update=update)


def _row(
    baseline: Cell, candidate: Cell, metric: Metric, pairs: Pairs, attribute: str, group: str, min_group: int
) -> GroupDifference:
    role = candidate.result.role
    assert role != "reference"
    applies, member, change = group_masks(pairs, attribute, group)
    rest = applies & ~member
    logarithmic = metric.pairing == "log-ratio"

    def shown(value: float) -> float:
        return relative_change(value) if logarithmic else value

    def level(scores: Floats | None) -> float | None:
        return None if scores is None else mean_value(scores[member], logarithmic)

    delta, rest_delta = float(change[member].mean()), float(change[rest].mean())
    row = GroupDifference(
        suite=candidate.result.suite,
        metric=metric.id,
        attribute=attribute,
        group=group,
        baseline=baseline.result.backend,
        candidate=candidate.result.backend,
        role=role,
        n=int(member.sum()),
        clusters=len({name for name, there in zip(pairs.clusters, member, strict=True) if there}),
        baseline_value=level(pairs.reference),
        candidate_value=level(pairs.candidate),
        delta=shown(delta),
        rest_delta=shown(rest_delta),
        did=shown(delta - rest_delta),
        too_few=min(int(member.sum()), int(rest.sum())) < min_group,
    )
    update: dict[str, object] = {"bias_flips": bias_flips(pairs, metric, member)}
    if pairs.correct:
        before, after = pairs.correct
        update["newly_wrong"] = float((before & ~after)[member].mean())
        update["newly_correct"] = float((~before & after)[member].mean())
    try:
        bounds = group_bounds(pairs, attribute, group, binary=is_binary(pairs, metric))
    except InvalidMeasurement:
        return row.model_copy(update=update | {"too_few": True})
    if bounds.se > 0:
        update["mde"] = shown(mde(1, sd=bounds.se, df=bounds.df))
    update |= {"ci_low": shown(bounds.lower(_TAIL)), "ci_high": shown(bounds.upper(_TAIL)), "p": two_sided_p(bounds)}
    return row.model_copy(update=update)
