"""Which group lost most, with the bias of having picked the worst accounted for."""

from __future__ import annotations

import numpy as np

from awqbench.compare.cell import Cell
from awqbench.compare.effect import is_binary, relative_change
from awqbench.compare.pairs import Pairs
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Metric, WorstGroup
from awqbench.stats.worst_group import worst_group

# A bootstrap of fewer items than this knows too little of their spread, and would find a worst group in two of them.
FEWEST = 10


def worst_groups(
    baseline: Cell, candidate: Cell, metric: Metric, pairs: Pairs, min_group: int, seed: int
) -> list[WorstGroup]:
    """A row per attribute of one metric: the group that lost most, among those with `min_group` items and `FEWEST`.

    None for attributes with fewer than two such groups, and none for the noise floor. Losses of log-ratio metrics are
    relative. See `awqbench.stats.worst_group` for what the figures rest on.
    """
    role = candidate.result.role
    if role not in ("candidate", "control"):
        return []
    loss = pairs.change(-1.0 if metric.higher_is_better and metric.pairing != "to-reference" else 1.0)
    relative = metric.pairing == "log-ratio"
    shown = relative_change if relative else float
    rows = []
    for attribute in pairs.attributes():
        names = pairs.groups(attribute)
        counts = names.value_counts()
        there = np.asarray(names.isin(counts[counts >= max(min_group, FEWEST)].index), dtype=np.bool_)
        clusters = [name for name, chosen in zip(pairs.clusters, there, strict=True) if chosen]
        try:
            binary = is_binary(pairs, metric)
            found = worst_group(loss[there], list(names[there]), clusters, seed=seed, binary=binary)
        except InvalidMeasurement:
            continue
        rows.append(
            WorstGroup(
                suite=candidate.result.suite,
                metric=metric.id,
                attribute=attribute,
                group=found.group,
                baseline=baseline.result.backend,
                candidate=candidate.result.backend,
                role=role,
                n=int(counts[found.group]),
                groups=found.groups,
                loss=shown(found.estimate),
                upper=shown(found.upper),
                excess=shown(found.excess),
                excess_if_equal=shown(found.excess_if_equal),
                p=found.p,
                unit="relative" if relative else metric.unit,
            )
        )
    return rows
