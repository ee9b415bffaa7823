"""One rule applied to one metric (or one group of it) of one candidate, before the family is corrected."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from awqbench.compare.cell import Cell
from awqbench.compare.effect import is_binary, mean_value, measure_effect
from awqbench.compare.groups import SLICED, group_bounds, group_masks
from awqbench.compare.pairs import Pairs, pair_items
from awqbench.errors import InvalidMeasurement
from awqbench.gate.scale import Scale, scale_for
from awqbench.record.schema import Metric, VerdictName
from awqbench.spec import GateSpec
from awqbench.stats.bounds import Bounds
from awqbench.stats.verdict import FEW_CLUSTERS, Decision, decide


@dataclass(frozen=True)
class Trial:
    """The loss of a candidate, with its bounds and what they say of the rule's margin.

    bounds and decision are None for a single figure (`point`), and for what cannot be judged: `unjudged` says why;
    a group that is merely too small beside others that aren't (`small`) doesn't hold up the verdict.
    """

    gate: GateSpec
    cell: Cell
    baseline: str
    metric: Metric
    scale: Scale
    margin: float  # on the tested scale
    estimate: float  # on the tested scale
    n: int
    clusters: int | None = None  # independent ones; of a group, the fewer of its own and the others'
    bounds: Bounds | None = None
    decision: Decision | None = None
    point: bool = False
    unjudged: str | None = None
    small: bool = False
    attribute: str | None = None
    group: str | None = None

    @property
    def gain(self) -> float:
        """How far a change may go the other way under a rule of two sides, on the tested scale."""
        return self.scale.tested_gain(self.gate.margin)

    @property
    def few(self) -> bool:
        """Whether items planned from these are a lower bound."""
        return self.clusters is not None and self.clusters < FEW_CLUSTERS

    @property
    def shown_bounds(self) -> tuple[float, float] | None:
        """The loss's bounds as the rule states margins; of a distance, those that a distance can have."""
        if self.decision is None:
            return None
        low, high = (self.scale.shown(bound) for bound in (self.decision.lower, self.decision.upper))
        distance = self.scale.base is None and self.group is None
        return self.metric.cut(low, high) if distance else (low, high)

    def verdict(self, p_holm: float | None) -> VerdictName:
        """The verdict once the family is corrected; p_holm is None for what has no p."""
        if self.point:
            loss = abs(self.estimate) if self.gate.sided == "two" else self.estimate
            return "pass" if loss <= (0.0 if self.gate.zero_tolerance else self.margin) else "fail"
        if self.decision is None or p_holm is None:
            return "inconclusive"
        if p_holm < self.gate.alpha:
            return "fail"
        # Beyond the margin when taken alone, but not among all rules.
        return "inconclusive" if self.decision.verdict == "fail" else self.decision.verdict


def metric_trial(gate: GateSpec, cell: Cell, baseline: Cell, metric: Metric, seed: int) -> Trial:
    """The rule on the metric as a whole. Raises InvalidMeasurement for figures that must not be judged."""
    sign = _sign(metric)
    effect = measure_effect(baseline, cell, metric, sign=sign, cluster=gate.cluster, seed=seed)
    scale = scale_for(gate, metric, effect.baseline_value, sign)
    margin = scale.tested(gate.margin)
    decision = _decide(effect.bounds, margin, gate, scale) if effect.bounds else None
    point = metric.pairing == "none"
    return Trial(
        gate,
        cell,
        baseline.result.backend,
        metric,
        scale,
        margin,
        effect.estimate,
        effect.n,
        effect.clusters,
        effect.bounds,
        decision,
        point,
        None if point else effect.problem,
    )


def group_trials(gate: GateSpec, cell: Cell, baseline: Cell, metric: Metric) -> list[Trial]:
    """The rule on every group of its attribute: the group's loss minus that of the attribute's other groups.

    Groups under `min_group` are `small`, unless all are: then the rule has shown nothing, and none is let off.
    """
    distance = metric.pairing == "to-reference" and baseline.result.role == "reference"
    pairs = pair_items(baseline, cell, metric.id, distance=distance, cluster=gate.cluster)
    sign = _sign(metric)
    base = None if pairs.reference is None else mean_value(pairs.reference, metric.pairing == "log-ratio")
    scale = scale_for(gate, metric, base, sign)
    trials = [
        _group_trial(gate, cell, baseline, metric, pairs, scale, attribute, str(group))
        for attribute in attributes(gate, pairs)
        for group in sorted(pairs.groups(attribute).dropna().unique())
    ]
    if not all(trial.small for trial in trials):
        return trials
    return [replace(t, small=False, unjudged=f"too few items in every group ({t.unjudged})") for t in trials]


def attributes(gate: GateSpec, pairs: Pairs) -> list[str]:
    """The attributes of a metric's items that the rule judges."""
    return [name for name in pairs.attributes() if gate.attribute in ("*", name)]


def sliced_attributes(cell: Cell, metric: Metric) -> list[str]:
    """The attributes one metric can be judged by; none without items."""
    if metric.pairing not in SLICED or cell.rows(metric.id).empty:
        return []
    return pair_items(cell, cell, metric.id, distance=True).attributes()


def _group_trial(
    gate: GateSpec, cell: Cell, baseline: Cell, metric: Metric, pairs: Pairs, scale: Scale, attribute: str, group: str
) -> Trial:
    applies, member, change = group_masks(pairs, attribute, group)
    rest = applies & ~member
    n, others = int(member.sum()), int(rest.sum())
    estimate = scale.sign * float(change[member].mean() - change[rest].mean())
    bounds, unjudged = None, None
    small = min(n, others) < gate.min_group
    if small:
        unjudged = f"{n} items in the group and {others} outside, {gate.min_group} are needed on each side"
    else:
        try:
            binary = is_binary(pairs, metric)
            bounds = group_bounds(pairs, attribute, group, binary=binary, sign=scale.sign)
        except InvalidMeasurement as error:
            unjudged = str(error)
    margin = scale.tested(gate.margin)
    clusters = min(len(set(np.asarray(pairs.clusters)[side])) for side in (member, rest))
    return Trial(
        gate,
        cell,
        baseline.result.backend,
        metric,
        scale,
        margin,
        estimate,
        n,
        clusters,
        bounds,
        _decide(bounds, margin, gate, scale) if bounds else None,
        unjudged=unjudged,
        small=small,
        attribute=attribute,
        group=group,
    )


def _decide(bounds: Bounds, margin: float, gate: GateSpec, scale: Scale) -> Decision:
    """The margin's decision; under zero tolerance p_worse is that of any loss at all."""
    decision = decide(bounds, margin, gate.alpha, gate.sided, scale.tested_gain(gate.margin))
    if not gate.zero_tolerance:
        return decision
    return replace(decision, p_worse=decide(bounds, 0.0, gate.alpha, gate.sided).p_worse)


def _sign(metric: Metric) -> float:
    """1 where higher is worse, as for every distance, and where neither side is; -1 where higher is better."""
    return -1.0 if metric.higher_is_better and metric.pairing != "to-reference" else 1.0
