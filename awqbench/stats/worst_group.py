"""The worst of several groups, with the bias of having picked the worst taken into account."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.bootstrap import resamples
from awqbench.stats.inputs import Clusters, Scores, as_scores, check_share, cluster_codes


@dataclass(frozen=True)
class WorstGroup:
    """The group with the largest mean loss, beside what the worst of equal groups would have shown.

    estimate: its mean loss. upper: one-sided bound of the largest true mean loss. excess: estimate minus the mean over
    all items; excess_if_equal: that excess expected by chance alone; p: one-sided, of 'all groups are equal'.
    """

    group: str
    estimate: float
    upper: float
    excess: float
    excess_if_equal: float
    p: float
    groups: int


def worst_group(
    loss: Scores, groups: Clusters, clusters: Clusters = None, level: float = 0.95, seed: int = 0, *, draws: int = 1999
) -> WorstGroup:
    """The largest mean loss over groups, by a cluster bootstrap of the maximum.

    The worst of k equal groups looks worse than the average. The bootstrap recentres every group at its own estimate:
    the largest deviation over groups is then what chance alone shows, and its quantile bounds all groups at once.
    loss: float array (n,), higher is worse; groups, clusters: (n,) names.
    Raises InvalidMeasurement for a group with fewer than two items, or when fewer than two groups are given.
    Source: the single-step maximum of Westfall & Young, Resampling-Based Multiple Testing (1993).
    """
    array = as_scores(loss, "loss")
    check_share(level, "level")
    names = np.asarray([str(name) for name in (groups if groups is not None else [])])
    labels, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    if names.size != array.size or labels.size < 2 or counts.min() < 2:
        raise InvalidMeasurement("a worst group needs a group for every item, and two groups of two items or more")
    codes = cluster_codes(clusters, array.size)
    shape = (int(codes.max()) + 1, labels.size)
    sums, sizes = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (codes, which), array)
    np.add.at(sizes, (codes, which), 1.0)
    means, overall = sums.sum(0) / sizes.sum(0), float(array.mean())
    below, above = [], []
    for index in resamples(shape[0], draws, seed):
        weights = np.zeros((index.shape[0], shape[0]))
        np.add.at(weights, (np.arange(index.shape[0])[:, None], index), 1.0)
        drawn_sums, drawn_sizes = weights @ sums, weights @ sizes
        # A group that a resample left out deviates by nothing.
        drawn = np.where(drawn_sizes > 0, drawn_sums / np.maximum(drawn_sizes, 1.0), means)
        drawn_overall = drawn_sums.sum(1) / drawn_sizes.sum(1)
        below.append((means - drawn).max(1))
        above.append((drawn - means - (drawn_overall - overall)[:, None]).max(1))
    worst, chance = int(means.argmax()), np.concatenate(above)
    excess = float(means[worst]) - overall
    return WorstGroup(
        group=str(labels[worst]),
        estimate=float(means[worst]),
        upper=float(means[worst] + np.quantile(np.concatenate(below), level, method="higher")),
        excess=excess,
        excess_if_equal=float(chance.mean()),
        p=float((1 + (chance >= excess).sum()) / (1 + draws)),
        groups=labels.size,
    )
